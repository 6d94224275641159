//! Helpers that tests share: events, a collector of verdicts, a gate that blocks handlers.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use eventbroker::stats::SubscriptionStats;
use eventbroker::{Broker, Event, EventId, ManualClock, Source, SubscribeOptions, Verdict};
use parking_lot::{Condvar, Mutex};

/// How long a test waits before it fails: far longer than any wait takes, even with many threads per core.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An event of a type.
pub(crate) fn event(event_type: &str) -> Event {
    Event::builder(Source::System, event_type).build().expect("a valid event")
}

/// An event of a type with a key.
pub(crate) fn keyed(event_type: &str, key: &str) -> Event {
    Event::builder(Source::System, event_type).key(key).build().expect("a valid event")
}

/// An event of a type with a number as its payload.
pub(crate) fn numbered(event_type: &str, number: u64) -> Event {
    Event::builder(Source::System, event_type).payload(&number).build().expect("a valid event")
}

/// The payload of a numbered event.
pub(crate) fn number_of(event: &Event) -> u64 {
    event.payload_as().expect("a numbered event")
}

/// The statistics of the subscription of this name.
pub(crate) fn stats_of(broker: &Broker, name: &str) -> SubscriptionStats {
    let subscriptions = broker.stats().subscriptions;
    subscriptions.into_iter().find(|it| &*it.name == name).expect("a subscription of this name")
}

/// One verdict, as an observer received it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settlement {
    pub(crate) id: EventId,
    pub(crate) event_type: String,
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    pub(crate) attempts: u32,
    pub(crate) error: Option<String>,
}

/// Collects the verdicts of a broker through an observer.
pub(crate) struct Settlements(Receiver<Settlement>);

impl Settlements {
    pub(crate) fn of(broker: &Broker) -> Self {
        let (sender, receiver) = channel();
        broker.on_settled(move |settled| {
            let settlement = Settlement {
                id: settled.event.id().clone(),
                event_type: settled.event.event_type().to_string(),
                name: settled.name.to_owned(),
                verdict: settled.verdict,
                attempts: settled.attempts,
                error: settled.error.map(str::to_owned),
            };
            // The test may have ended already.
            let _ = sender.send(settlement);
        });
        Self(receiver)
    }

    /// The next verdict.
    pub(crate) fn next(&self) -> Settlement {
        self.0.recv_timeout(PATIENCE).expect("a delivery should have been settled")
    }

    /// The next `count` verdicts.
    pub(crate) fn take(&self, count: usize) -> Vec<Settlement> {
        (0..count).map(|_| self.next()).collect()
    }

    /// The verdicts that have arrived and were not taken yet.
    pub(crate) fn so_far(&self) -> Vec<Settlement> {
        self.0.try_iter().collect()
    }
}

/// Blocks handlers until it is opened, and signals each arrival.
#[derive(Clone)]
pub(crate) struct Gate(Arc<GateState>);

struct GateState {
    /// How many handlers may pass.
    passes: Mutex<usize>,
    opened: Condvar,
    arrivals: Sender<()>,
    arrived: Mutex<Receiver<()>>,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        let (arrivals, arrived) = channel();
        let state = GateState { passes: Mutex::new(0), opened: Condvar::new(), arrivals, arrived: Mutex::new(arrived) };
        Self(Arc::new(state))
    }

    /// Called by handlers: blocks until the gate lets one pass.
    pub(crate) fn pass(&self) {
        let _ = self.0.arrivals.send(());
        let deadline = Instant::now() + 3 * PATIENCE;
        let mut passes = self.0.passes.lock();
        while *passes == 0 {
            assert!(!self.0.opened.wait_until(&mut passes, deadline).timed_out(), "the gate was never opened");
        }
        *passes -= 1;
    }

    /// Waits until one more handler has arrived.
    pub(crate) fn wait_for_arrival(&self) {
        self.0.arrived.lock().recv_timeout(PATIENCE).expect("a handler should have arrived at the gate");
    }

    /// How many handlers have arrived beyond those that were waited for.
    pub(crate) fn arrivals(&self) -> usize {
        self.0.arrived.lock().try_iter().count()
    }

    /// Lets all handlers pass from now on.
    pub(crate) fn open(&self) {
        *self.0.passes.lock() = usize::MAX / 2;
        self.0.opened.notify_all();
    }

    /// Lets one handler pass.
    pub(crate) fn open_once(&self) {
        *self.0.passes.lock() += 1;
        self.0.opened.notify_one();
    }
}

/// A test that fails opens its gates, so that the broker can stop.
impl Drop for Gate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.open();
        }
    }
}

/// A clock that only the test advances. After 4 minutes it advances by itself, so that a failed test does not wait for
/// ever for a broker that drains.
pub(crate) fn manual_clock() -> ManualClock {
    let clock = ManualClock::new();
    let runaway = clock.clone();
    std::thread::spawn(move || {
        std::thread::sleep(4 * PATIENCE);
        loop {
            runaway.advance(Duration::from_secs(3_600));
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    clock
}

/// Receives a message within `PATIENCE`.
pub(crate) fn receive<T>(receiver: &Receiver<T>, what: &str) -> T {
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => panic!("timed out waiting for {what}"),
        RecvTimeoutError::Disconnected => panic!("the sender is gone before {what}"),
    })
}

/// Polls until a condition holds. For conditions that no channel or gate signals.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a call that might never return on a thread of its own, and waits for its result.
pub(crate) fn in_time<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let _ = sender.send(run());
    });
    receive(&receiver, what)
}

/// Waits until the broker counts `attempts` attempts in all, and `waiting` deliveries that wait for a retry.
pub(crate) fn wait_for_retries(broker: &Broker, attempts: u64, waiting: u64) {
    wait_until(&format!("{waiting} deliveries wait after {attempts} attempts"), || {
        let stats = broker.stats();
        stats.attempts == attempts && stats.subscriptions.iter().map(|it| it.waiting).sum::<u64>() == waiting
    });
}

/// Subscribes a handler that sends the id of its event when it begins, and then waits at the gate.
pub(crate) fn listen(broker: &Broker, options: SubscribeOptions, gate: &Gate) -> Receiver<EventId> {
    let (sender, calls) = channel();
    let gate = gate.clone();
    broker
        .subscribe_with(options, move |delivery| {
            // The receiver is gone when the test has received enough.
            let _ = sender.send(delivery.event().id().clone());
            gate.pass();
        })
        .expect("a subscription");
    calls
}

/// A gate that is open.
pub(crate) fn open_gate() -> Gate {
    let gate = Gate::closed();
    gate.open();
    gate
}
