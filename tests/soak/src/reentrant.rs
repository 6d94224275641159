//! Handlers that publish two events each into their own queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eventbroker::{Broker, Overflow, SubscribeOptions};

use crate::figures::{Figures, event, wait_until_settled};

/// Generations of events: a handler of the last one publishes nothing.
const GENERATIONS: u64 = 12;

pub(crate) fn run(short: bool, figures: &mut Figures) {
    let rounds = if short { 1 } else { 20 };
    let (mut longest_refusal, mut longest_round, mut lost, mut unsettled) = (0, Duration::ZERO, 0, 0);
    for _ in 0..rounds {
        for workers in 1..=4 {
            for capacity in 1..=8 {
                let started = Instant::now();
                let broker = Broker::builder().worker_count(workers).start().expect("a broker");
                let (accepted, handled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
                let refusal = Arc::new(AtomicU64::new(0));
                let (counts, slowest) = ((Arc::clone(&accepted), Arc::clone(&handled)), Arc::clone(&refusal));
                let options = SubscribeOptions::new("re.entry.create")
                    .concurrency(workers)
                    .queue_capacity(capacity)
                    .overflow(Overflow::Block(Duration::from_secs(60)));
                broker
                    .subscribe_with(options, move |delivery| {
                        let generation: u64 = delivery.event().payload_as().expect("a number");
                        for _ in 0..2 {
                            if generation < GENERATIONS
                                && let Some(broker) = delivery.broker()
                            {
                                let called = Instant::now();
                                match broker.publish(event("re.entry.create", &(generation + 1))) {
                                    Ok(_) => counts.0.fetch_add(1, Ordering::SeqCst),
                                    Err(_) => slowest.fetch_max(called.elapsed().as_nanos() as u64, Ordering::SeqCst),
                                };
                            }
                        }
                        counts.1.fetch_add(1, Ordering::SeqCst);
                    })
                    .expect("a subscription");
                for _ in 0..20 {
                    broker.publish(event("re.entry.create", &0)).expect("room comes");
                    accepted.fetch_add(1, Ordering::SeqCst);
                }
                unsettled += u64::from(!wait_until_settled(&broker));
                lost += accepted.load(Ordering::SeqCst) - handled.load(Ordering::SeqCst);
                longest_refusal = longest_refusal.max(refusal.load(Ordering::SeqCst));
                longest_round = longest_round.max(started.elapsed());
            }
        }
    }
    let refusal = Duration::from_nanos(longest_refusal);
    figures.note("queues of 1 to 8, workers 1 to 4, rounds", rounds);
    figures.exactly("rounds that did not end", unsettled, 0);
    figures.exactly("lost", lost, 0);
    let bound = Duration::from_secs(5);
    figures.check("longest round", format!("{longest_round:?}"), "at most 5 s", longest_round <= bound);
    // A rejection takes microseconds; the bound allows for a preempted thread.
    let bound = Duration::from_millis(10);
    figures.check("longest refusal", format!("{refusal:?}"), "at most 10 ms", refusal <= bound);
}
