//! A subscription never runs more calls at once than its concurrency, calls on lent threads included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Delivery, Outcome, Overflow, RetryPolicy, SubscribeOptions};

use crate::support::{Gate, PATIENCE, event, keyed, stats_of, wait_until};

/// Counts the running calls, and keeps the highest count.
#[derive(Default)]
struct Meter {
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Meter {
    fn measure(&self, work: impl FnOnce()) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        work();
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

fn work_for(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        thread::yield_now();
    }
}

/// Publishes from several threads, every other event synchronously, with retries. Every eighth call takes `time`.
fn flood(options: SubscribeOptions, concurrency: usize, time: Duration, events: u64) {
    const PUBLISHERS: u64 = 4;
    let broker = Broker::builder().worker_count(4).start().expect("a running broker");
    let meter = Arc::new(Meter::default());
    let measured = Arc::clone(&meter);
    let calls = AtomicU64::new(0);
    let handler = move |delivery: &Delivery<'_>| {
        let number = calls.fetch_add(1, Ordering::Relaxed);
        measured.measure(|| {
            if number.is_multiple_of(8) {
                work_for(time);
            }
        });
        if number.is_multiple_of(16) && delivery.attempt() < 4 {
            Outcome::Retry("not yet".into())
        } else {
            Outcome::Done
        }
    };
    let options = options.queue_capacity(64).overflow(Overflow::Block(6 * PATIENCE));
    broker.subscribe_with(options.retry(RetryPolicy::fixed(4, Duration::ZERO)), handler).expect("a subscription");
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let broker = &broker;
            scope.spawn(move || {
                for number in 0..events {
                    let event = if number % 5 == 0 { keyed("a", &publisher.to_string()) } else { event("a") };
                    if number % 2 == 0 {
                        assert!(broker.publish_sync(event).expect("accepted").is_success());
                    } else {
                        broker.publish(event).expect("accepted");
                    }
                }
            });
        }
    });
    wait_until("all are handled", || broker.stats().completed == PUBLISHERS * events);
    let most = meter.most();
    assert!(most <= concurrency, "{most} at once, {concurrency} are allowed");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn concurrency_one_runs_one_call_at_a_time() {
    flood(SubscribeOptions::new("*").concurrency(1), 1, Duration::from_micros(100), 1_000);
}

#[test]
fn concurrency_two_runs_two_calls_at_a_time() {
    flood(SubscribeOptions::new("*").concurrency(2), 2, Duration::from_micros(100), 1_000);
}

#[test]
fn concurrency_three_runs_three_slow_calls_at_a_time() {
    flood(SubscribeOptions::new("*").concurrency(3), 3, Duration::from_millis(6), 60);
}

#[test]
fn an_ordered_subscription_runs_one_call_at_a_time() {
    flood(SubscribeOptions::new("*").ordered(), 1, Duration::from_micros(100), 1_000);
}

#[test]
fn a_dedicated_subscription_runs_a_call_per_thread() {
    flood(SubscribeOptions::new("*").dedicated(2), 2, Duration::from_micros(100), 1_000);
}

#[test]
fn a_call_on_a_lent_thread_takes_a_permit() {
    let broker = Broker::builder().start().expect("a running broker");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let options = SubscribeOptions::new("*").name("s").concurrency(2);
    broker.subscribe_with(options, move |_| handler_gate.pass()).expect("a subscription");
    thread::scope(|scope| {
        let lent: Vec<_> = (0..2).map(|_| scope.spawn(|| broker.publish_sync(event("a")))).collect();
        gate.wait_for_arrival();
        gate.wait_for_arrival();
        for _ in 0..10 {
            broker.publish(event("a")).expect("accepted");
        }
        let stats = stats_of(&broker, "s");
        assert_eq!((stats.running, stats.queued, gate.arrivals()), (2, 10, 0));
        gate.open_once();
        gate.wait_for_arrival();
        wait_until("the call that ended is no longer counted", || stats_of(&broker, "s").running == 2);
        assert_eq!((stats_of(&broker, "s").queued, gate.arrivals()), (9, 0));
        gate.open();
        for thread in lent {
            assert!(thread.join().expect("no panic").expect("accepted").is_success());
        }
    });
    wait_until("all are handled", || broker.stats().completed == 12);
}

#[test]
fn each_subscription_has_a_concurrency_of_its_own() {
    let broker = Broker::builder().start().expect("a running broker");
    let gate = Gate::closed();
    for concurrency in [1, 2, 4] {
        let handler_gate = gate.clone();
        let options = SubscribeOptions::new("*").name(format!("s{concurrency}")).concurrency(concurrency);
        broker.subscribe_with(options, move |_| handler_gate.pass()).expect("a subscription");
    }
    for _ in 0..10 {
        broker.publish(event("a")).expect("accepted");
    }
    (0..7).for_each(|_| gate.wait_for_arrival());
    let running: Vec<u64> = broker.stats().subscriptions.iter().map(|it| it.running).collect();
    assert_eq!((running, gate.arrivals()), (vec![1, 2, 4], 0));
    gate.open();
    wait_until("all are handled", || broker.stats().completed == 10);
}
