//! A load during faults: publishers and a subscription that run throughout, and the account of their events.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::Provider;
use eventbroker::{Broker, Config, Event, PublishError, Source, SubscribeOptions};

use crate::processes::ledger::Accepted;
use crate::watch::{PATIENCE, RECOVERY, last_error, wait_until};

/// The `sync_timeout`: after this time a publish is unknown.
pub const DEADLINE: Duration = Duration::from_secs(1);
const PUBLISHERS: u64 = 4;

/// The counts of a running load.
#[derive(Debug)]
pub struct Load<'a> {
    broker: &'a Broker,
    accepted: Mutex<Accepted>,
    unknown: Mutex<BTreeSet<String>>,
    handled: Arc<AtomicU64>,
    /// Duration of the longest publish.
    slowest: Mutex<Duration>,
    resumed: Mutex<Duration>,
    payload: String,
}

/// Stops the publishers on drop, also by a panic, so that the scope of their threads ends.
#[derive(Debug)]
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Starts a broker with a `sync_timeout` of [`DEADLINE`].
pub fn start(provider: Provider) -> Broker {
    let mut config = Config::default();
    config.sync_timeout = DEADLINE;
    Broker::builder().config(config).provider(provider).start().expect("it starts")
}

/// Publishes from four threads, each with its own key and `payload` bytes, and handles the events, while `faults` runs.
/// Panics if an accepted event was lost or out of order, an event was made up, a publish exceeded its deadline, or the
/// load resumed after more than [`RECOVERY`].
pub fn run(name: &str, broker: &Broker, payload: usize, faults: impl FnOnce(&Load<'_>)) {
    run_within(RECOVERY, name, broker, payload, faults);
}

/// As [`run`], with another deadline for resuming.
pub fn run_within(recovery: Duration, name: &str, broker: &Broker, payload: usize, faults: impl FnOnce(&Load<'_>)) {
    let (sender, calls) = channel();
    let handled = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&handled);
    broker
        .subscribe_with(SubscribeOptions::new("load.*").name("all").concurrency(4), move |delivery| {
            counted.fetch_add(1, Ordering::SeqCst);
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().id().to_string());
        })
        .expect("a subscription");
    let load = Load {
        broker,
        accepted: Mutex::default(),
        unknown: Mutex::default(),
        handled,
        slowest: Mutex::default(),
        resumed: Mutex::default(),
        payload: "x".repeat(payload),
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (load, stop) = (&load, &stop);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    load.publish(publisher, number);
                }
            });
        }
        let _stop = Stop(&stop);
        let enough = 200.min(3_000_000 / payload);
        wait_until("the load is running", || load.counts().0 > enough);
        faults(&load);
        load.goes_on();
    });
    load.settle(name, recovery, &calls);
}

impl Load<'_> {
    fn publish(&self, publisher: u64, number: u64) {
        let event = Event::builder(Source::System, "load.it").key(publisher.to_string());
        let event = event.payload(&(number, &self.payload)).build().expect("a valid event");
        let began = Instant::now();
        let outcome = self.broker.publish(event.clone());
        let took = began.elapsed();
        match outcome {
            Ok(held) => {
                // A mixed-up answer would report a duplicate or another id.
                assert!(!held.duplicate && held.id == *event.id(), "it was published once");
                self.accepted.lock().expect("no panic under the lock").enter(&event, number);
                // Slow enough for the subscription to keep up.
                thread::sleep(Duration::from_millis(1));
            }
            Err(PublishError::Unknown { event, .. }) => {
                self.unknown.lock().expect("no panic under the lock").insert(event.id().to_string());
            }
            Err(error) => panic!("{error}"),
        }
        let mut slowest = self.slowest.lock().expect("no panic under the lock");
        *slowest = took.max(*slowest);
    }

    fn counts(&self) -> (usize, u64) {
        (self.accepted.lock().expect("no panic under the lock").count(), self.handled.load(Ordering::SeqCst))
    }

    /// Waits until more events are published and handled than could have been in flight before.
    pub fn goes_on(&self) {
        let before = self.counts();
        let goes_on = || {
            let now = self.counts();
            now.0 > before.0 + 2 * PUBLISHERS as usize && now.1 > before.1 + 2 * PUBLISHERS
        };
        let took = wait_until("publishing and handling resume", goes_on);
        let mut resumed = self.resumed.lock().expect("no panic under the lock");
        *resumed = took.max(*resumed);
    }

    /// The number of publishes with the outcome unknown.
    pub fn unknown(&self) -> usize {
        self.unknown.lock().expect("no panic under the lock").len()
    }

    /// The last error of the bridge.
    pub fn last_error(&self) -> String {
        last_error(self.broker)
    }

    fn settle(self, name: &str, recovery: Duration, handled: &Receiver<String>) {
        let accepted = self.accepted.into_inner().expect("no panic under the lock");
        let unknown = self.unknown.into_inner().expect("no panic under the lock");
        let mut calls: Vec<String> = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !accepted.is_handled(&calls) {
            assert!(Instant::now() < deadline, "{name}: {}", accepted.account(&calls));
            calls.extend(handled.recv_timeout(Duration::from_millis(100)));
            calls.extend(handled.try_iter());
        }
        let lost = self.broker.back_end_stats().expect("it answers");
        assert!(self.broker.stop(PATIENCE).is_clean());
        calls.extend(handled.try_iter());
        calls.retain(|id| !unknown.contains(id));
        let account = accepted.account(&calls);
        let (slowest, resumed) = (*self.slowest.lock().expect("here"), *self.resumed.lock().expect("here"));
        println!(
            "{name}: {account}, unknown {}, slowest publish {slowest:?}, resumed within {resumed:?}",
            unknown.len()
        );
        account.check();
        assert_eq!((lost.entries_lost, lost.losses_unknown), (0, 0), "{name}: a loss is reported");
        assert!(account.repeated <= 8 + unknown.len(), "{name}: more repeats than deliveries in flight");
        assert!(resumed < recovery, "{name}: resumed after {resumed:?}");
        assert!(slowest < 2 * DEADLINE, "{name}: a publish took {slowest:?}");
    }
}

/// How long a fault lasts: `otherwise`, or the seconds in `DOWN`.
pub fn down(otherwise: Duration) -> Duration {
    let set = std::env::var("DOWN").map(|text| text.parse().expect("DOWN must be a number"));
    set.map_or(otherwise, Duration::from_secs)
}
