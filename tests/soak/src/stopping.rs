//! Stop while publishers are blocked on a full queue.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Overflow, SubscribeOptions};

use crate::figures::{Figures, event};

const BLOCKED: usize = 64;
const DEADLINE: Duration = Duration::from_millis(500);

pub(crate) fn run(short: bool, figures: &mut Figures) {
    let rounds = if short { 3 } else { 50 };
    let (mut slowest_return, mut slowest_stop) = (Duration::ZERO, Duration::ZERO);
    let (mut accepted, mut handled, mut abandoned, mut refused) = (0, 0, 0, 0);
    for _ in 0..rounds {
        let broker = Broker::builder().worker_count(2).start().expect("a broker");
        let calls = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&calls);
        let options = SubscribeOptions::new("stop.entry.create")
            .concurrency(1)
            .queue_capacity(4)
            .overflow(Overflow::Block(Duration::from_secs(60)));
        broker
            .subscribe_with(options, move |delivery| {
                while !delivery.cancelled() {
                    thread::sleep(Duration::from_millis(1));
                }
                counter.fetch_add(1, Ordering::SeqCst);
            })
            .expect("a subscription");
        // One delivery in the handler, four queued: from here on every publisher blocks.
        let mut taken = 0;
        while taken < 5 {
            taken += u64::from(broker.publish_async(event("stop.entry.create", &0)).is_ok());
        }
        accepted += taken;
        let (begun, ready) = (Arc::new(Mutex::new(Instant::now())), Barrier::new(BLOCKED + 1));
        thread::scope(|scope| {
            let publishers: Vec<_> = (0..BLOCKED)
                .map(|_| {
                    let (broker, ready, begun) = (&broker, &ready, Arc::clone(&begun));
                    scope.spawn(move || {
                        ready.wait();
                        let outcome = broker.publish(event("stop.entry.create", &1));
                        (outcome.is_err(), begun.lock().expect("the time").elapsed())
                    })
                })
                .collect();
            ready.wait();
            thread::sleep(Duration::from_millis(50));
            *begun.lock().expect("the time") = Instant::now();
            let started = Instant::now();
            let report = broker.stop(DEADLINE);
            slowest_stop = slowest_stop.max(started.elapsed());
            abandoned += report.abandoned.len() as u64;
            for publisher in publishers {
                let (was_refused, after) = publisher.join().expect("a publisher");
                refused += u64::from(was_refused);
                accepted += u64::from(!was_refused);
                slowest_return = slowest_return.max(after);
            }
        });
        handled += calls.load(Ordering::SeqCst);
    }
    figures.note("rounds", rounds);
    figures.exactly("blocked publishers that got their event back", refused, (rounds * BLOCKED) as u64);
    let (within, bound) = (Duration::from_millis(100), DEADLINE + Duration::from_millis(250));
    figures.check("slowest of them", format!("{slowest_return:?}"), "at most 100 ms", slowest_return <= within);
    figures.check("slowest stop", format!("{slowest_stop:?}"), "at most 750 ms", slowest_stop <= bound);
    figures.note("accepted", accepted);
    figures.note("handled (each after the deadline, so it is abandoned too)", handled);
    figures.exactly("abandoned", abandoned, accepted);
}
