//! Publishers and a subscription that go on whatever happens, and the account of what they did.

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

/// How long a publish waits until it says that it does not know.
pub const DEADLINE: Duration = Duration::from_secs(1);
const PUBLISHERS: u64 = 4;

/// What a load has done so far.
#[derive(Debug)]
pub struct Load<'a> {
    broker: &'a Broker,
    accepted: Mutex<Accepted>,
    unknown: Mutex<BTreeSet<String>>,
    handled: Arc<AtomicU64>,
    /// The longest publish.
    slowest: Mutex<Duration>,
    resumed: Mutex<Duration>,
    payload: String,
}

/// Ends publishers when it is dropped, also by a panic: the scope of their threads waits for them.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A broker whose publishes do not wait long.
pub fn start(provider: Provider) -> Broker {
    let mut config = Config::default();
    config.sync_timeout = DEADLINE;
    Broker::builder().config(config).provider(provider).start().expect("it starts")
}

/// Publishes from four threads, each with a key of its own and so many bytes of payload, and handles, while `faults` does its work. Panics
/// if anything accepted was lost or out of order, anything was made up, a publish took longer than it may, or it went on too late.
pub fn run(name: &str, broker: &Broker, payload: usize, faults: impl FnOnce(&Load<'_>)) {
    run_within(RECOVERY, name, broker, payload, faults);
}

/// The same where it may take longer until everything goes on.
pub fn run_within(recovery: Duration, name: &str, broker: &Broker, payload: usize, faults: impl FnOnce(&Load<'_>)) {
    let (sender, calls) = channel();
    let handled = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&handled);
    broker
        .subscribe_with(SubscribeOptions::new("load.*").name("all").concurrency(4), move |delivery| {
            counted.fetch_add(1, Ordering::SeqCst);
            // Nobody listens any more when the test has seen enough.
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
        wait_until("it is under way", || load.counts().0 > enough);
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
                // The answer to something else would be one.
                assert!(!held.duplicate && held.id == *event.id(), "it was published once");
                self.accepted.lock().expect("no panic under the lock").enter(&event, number);
                // The subscription can follow.
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

    /// Waits until more is published and handled than could be answered before.
    pub fn goes_on(&self) {
        let before = self.counts();
        let goes_on = || {
            let now = self.counts();
            now.0 > before.0 + 2 * PUBLISHERS as usize && now.1 > before.1 + 2 * PUBLISHERS
        };
        let took = wait_until("it goes on", goes_on);
        let mut resumed = self.resumed.lock().expect("no panic under the lock");
        *resumed = took.max(*resumed);
    }

    /// Publishes that did not learn what became of their event.
    pub fn unknown(&self) -> usize {
        self.unknown.lock().expect("no panic under the lock").len()
    }

    /// What the bridge has told last.
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
            "{name}: {account}, unknown {}, slowest publish {slowest:?}, went on within {resumed:?}",
            unknown.len()
        );
        account.check();
        assert_eq!((lost.entries_lost, lost.losses_unknown), (0, 0), "{name}: no loss is told of");
        assert!(account.repeated <= 8 + unknown.len(), "{name}: more than was under way");
        assert!(resumed < recovery, "{name}: it went on after {resumed:?}");
        assert!(slowest < 2 * DEADLINE, "{name}: a publish took {slowest:?}");
    }
}

/// How long a fault lasts: as the test says, or so many seconds as `DOWN` does.
pub fn down(otherwise: Duration) -> Duration {
    let set = std::env::var("DOWN").map(|text| text.parse().expect("DOWN is a number"));
    set.map_or(otherwise, Duration::from_secs)
}
