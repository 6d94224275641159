//! Counts the calls of each accepted event: lost, repeated and out-of-order deliveries.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Delivery, Event, RetryPolicy, Source, SubscribeOptions};

use crate::figures::{Figures, event, publish_until_accepted, resident_kib, wait_until_settled};

const PUBLISHERS: u64 = 8;
const KEYS_EACH: u64 = 16;
/// The capacity of the store: `max_events` at its default.
const STORED: u64 = 10_000;

/// The calls of each event of each publisher.
struct Ledger {
    /// Calls plus one, by publisher and number. Plus one, so that the memory is resident from the start.
    handled: Vec<Vec<AtomicU8>>,
    /// One more than the last number handled of each key, by publisher and key.
    last: Vec<Vec<AtomicU64>>,
    out_of_order: AtomicU64,
}

impl Ledger {
    fn new(events_each: u64) -> Arc<Self> {
        Arc::new(Self {
            handled: (0..PUBLISHERS).map(|_| (0..events_each).map(|_| AtomicU8::new(1)).collect()).collect(),
            last: (0..PUBLISHERS).map(|_| (0..KEYS_EACH).map(|_| AtomicU64::new(0)).collect()).collect(),
            out_of_order: AtomicU64::new(0),
        })
    }

    /// Records a call. Within a key, numbers must grow.
    fn handle(&self, publisher: u64, number: u64) {
        self.handled[publisher as usize][number as usize].fetch_add(1, Ordering::SeqCst);
        let last = &self.last[publisher as usize][(number % KEYS_EACH) as usize];
        if last.swap(number + 1, Ordering::SeqCst) > number {
            self.out_of_order.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn handle_delivery(&self, delivery: &Delivery<'_>) {
        let (publisher, number) = delivery.event().payload_as().expect("publisher and number");
        self.handle(publisher, number);
    }

    fn count(&self, matches: impl Fn(u8) -> bool) -> u64 {
        let all = self.handled.iter().flatten();
        all.filter(|times| matches(times.load(Ordering::SeqCst) - 1)).count() as u64
    }

    fn report(&self, figures: &mut Figures) {
        figures.exactly("lost", self.count(|times| times == 0), 0);
        figures.exactly("handled more than once", self.count(|times| times > 1), 0);
        figures.exactly("out of order within a key", self.out_of_order.load(Ordering::SeqCst), 0);
    }
}

/// Publishes the keyed events of all publishers. Calls `meanwhile` every 10 ms until the first publisher has finished.
///
/// Each publisher first fills the store alone. A thread allocates from an arena of its own, which keeps its peak size,
/// so every arena has held a full store before memory is measured. Otherwise memory grows for minutes, whenever one
/// publisher owns more of the store than before.
fn publish_all(broker: &Broker, events_each: u64, mut meanwhile: impl FnMut()) {
    let stored = STORED.min(events_each);
    let (alone, together) = (Mutex::new(()), Barrier::new(PUBLISHERS as usize + 1));
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let (alone, together) = (&alone, &together);
                scope.spawn(move || {
                    let turn = alone.lock().expect("the turn");
                    publish_numbers(broker, publisher, 0..stored);
                    drop(turn);
                    together.wait();
                    publish_numbers(broker, publisher, stored..events_each);
                })
            })
            .collect();
        together.wait();
        while !publishers.iter().any(|publisher| publisher.is_finished()) {
            meanwhile();
            thread::sleep(Duration::from_millis(10));
        }
    });
}

fn publish_numbers(broker: &Broker, publisher: u64, numbers: Range<u64>) {
    for number in numbers {
        let key = format!("{publisher}-{}", number % KEYS_EACH);
        let event = Event::builder(Source::System, "ledger.entry.create").payload(&(publisher, number)).key(key);
        publish_until_accepted(broker, event.build().expect("a valid event"));
    }
}

pub(crate) fn plain(short: bool, figures: &mut Figures) {
    let events_each = if short { 12_500 } else { 1_000_000 };
    let broker = Broker::builder().worker_count(4).start().expect("a broker");
    let ledger = Ledger::new(events_each);
    let entries = Arc::clone(&ledger);
    let options = SubscribeOptions::new("ledger.**").concurrency(4);
    broker.subscribe_with(options, move |delivery| entries.handle_delivery(delivery)).expect("a subscription");
    let started = Instant::now();
    let mut memory = Vec::new();
    publish_all(&broker, events_each, || memory.push(resident_kib()));
    let settled = wait_until_settled(&broker);
    let rate = (PUBLISHERS * events_each) as f64 / started.elapsed().as_secs_f64();
    figures.note("events", PUBLISHERS * events_each);
    figures.note("events per second", format!("{rate:.0}"));
    figures.check("settled", settled, "must be true", settled);
    ledger.report(figures);
    let stats = broker.stats();
    figures.exactly("completed", stats.completed, PUBLISHERS * events_each);
    figures.exactly("attempts", stats.attempts, PUBLISHERS * events_each);
    // Memory must be flat in the second half of a long run. A short run may still be warming up.
    let half = &memory[memory.len() / 2..];
    if !half.is_empty() {
        let mean = half.iter().sum::<u64>() as f64 / half.len() as f64;
        let deviation = half.iter().map(|kib| (*kib as f64 / mean - 1.0).abs()).fold(0.0, f64::max) * 100.0;
        let (what, shown) = ("memory in the second half, from its mean", format!("{deviation:.1} %"));
        figures.note("resident memory at the end, KiB", memory.last().copied().unwrap_or(0));
        if short {
            figures.note(what, shown);
        } else {
            figures.check(what, shown, "at most 5 %", deviation <= 5.0);
        }
    }
    let report = broker.stop(Duration::from_secs(10));
    figures.check("stop", format!("{report:?}"), "must be clean", report.is_clean());
}

pub(crate) fn panics(short: bool, figures: &mut Figures) {
    let events_each = if short { 1_250 } else { 125_000 };
    // Suppresses the message of each of the many panics.
    std::panic::set_hook(Box::new(|_| {}));
    let policy = RetryPolicy::fixed(3, Duration::from_millis(1));
    let broker = Broker::builder().worker_count(4).retry_policy(policy).start().expect("a broker");
    let ledger = Ledger::new(events_each);
    let (entries, calls) = (Arc::clone(&ledger), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&calls);
    let options = SubscribeOptions::new("ledger.**").concurrency(4);
    broker
        .subscribe_with(options, move |delivery| {
            counter.fetch_add(1, Ordering::SeqCst);
            let (_, number): (u64, u64) = delivery.event().payload_as().expect("publisher and number");
            assert!(!(number % 100 == 7 && delivery.attempt() == 1), "one in a hundred");
            entries.handle_delivery(delivery);
        })
        .expect("a subscription");
    publish_all(&broker, events_each, || ());
    let settled = wait_until_settled(&broker);
    drop(std::panic::take_hook());
    let panicking = PUBLISHERS * (0..events_each).filter(|number| number % 100 == 7).count() as u64;
    figures.note("events", PUBLISHERS * events_each);
    figures.check("settled", settled, "must be true", settled);
    ledger.report(figures);
    let stats = broker.stats();
    figures.exactly("calls", calls.load(Ordering::SeqCst), PUBLISHERS * events_each + panicking);
    figures.exactly("attempts", stats.attempts, PUBLISHERS * events_each + panicking);
    figures.exactly("retries", stats.retries, panicking);
    figures.exactly("completed", stats.completed, PUBLISHERS * events_each);
    figures.exactly("workers", stats.workers, 4);
    let report = broker.stop(Duration::from_secs(10));
    figures.check("stop", format!("{report:?}"), "must be clean", report.is_clean());
}

/// One subscription stays and must lose nothing. Others are added and removed, some of them from inside their handler.
pub(crate) fn churn(short: bool, figures: &mut Figures) {
    let runs: u64 = if short { 1_000 } else { 10_000 };
    let broker = Broker::builder().worker_count(4).start().expect("a broker");
    let (seen, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (counter, mut late_calls) = (Arc::clone(&seen), 0);
    broker
        .subscribe("churn.**", move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .expect("a subscription");
    let accepted = thread::scope(|scope| {
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut accepted = 0_u64;
                    while !stop.load(Ordering::SeqCst) {
                        publish_until_accepted(&broker, event("churn.entry.create", &accepted));
                        accepted += 1;
                    }
                    accepted
                })
            })
            .collect();
        for run in 0..runs {
            let (calls, from_inside) = (Arc::new(AtomicU64::new(0)), run % 3 == 0);
            let counter = Arc::clone(&calls);
            let subscribed = broker.subscribe_with(
                SubscribeOptions::new("churn.*.*").overflow(eventbroker::Overflow::DropOldest),
                move |delivery| {
                    counter.fetch_add(1, Ordering::SeqCst);
                    if from_inside && let Some(broker) = delivery.broker() {
                        // An error if another call of this handler has removed it first.
                        let _ = broker.unsubscribe(delivery.subscription());
                    }
                },
            );
            let id = subscribed.expect("a subscription");
            if from_inside {
                while calls.load(Ordering::SeqCst) == 0 {
                    thread::yield_now();
                }
                while broker.stats().subscriptions.iter().any(|it| it.id == id) {
                    thread::yield_now();
                }
            } else {
                broker.unsubscribe(id).expect("it exists");
                let at_return = calls.load(Ordering::SeqCst);
                thread::yield_now();
                late_calls += calls.load(Ordering::SeqCst) - at_return;
            }
        }
        stop.store(true, Ordering::SeqCst);
        publishers.into_iter().map(|publisher| publisher.join().expect("a publisher")).sum::<u64>()
    });
    let settled = wait_until_settled(&broker);
    figures.note("subscriptions made and removed", runs);
    figures.check("settled", settled, "must be true", settled);
    figures.exactly("calls after unsubscribe returned", late_calls, 0);
    figures.exactly("deliveries of the one that stayed", seen.load(Ordering::SeqCst), accepted);
    let report = broker.stop(Duration::from_secs(10));
    figures.check("stop", format!("{report:?}"), "must be clean", report.is_clean());
}
