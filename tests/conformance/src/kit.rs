//! Helpers of the cases: brokers, events, a record of calls, and a gate that blocks handlers.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::{
    Broker, BrokerBuilder, Delivery, Event, EventId, HandlerError, IntoOutcome, RetryPolicy, Source, Status,
    SubscribeOptions, SubscriptionId, Verdict,
};

use crate::Subject;

/// Deadline of every wait, generous for a busy machine and a slow back end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Deadline of a stop that drains.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

pub(crate) type Ids = BTreeSet<EventId>;

/// The settings of every broker of the suite: few workers, short retry delays.
pub(crate) fn builder(instance: &str) -> BrokerBuilder {
    Broker::builder()
        .instance_id(instance)
        .worker_count(4)
        .retry_policy(RetryPolicy::fixed(3, Duration::from_millis(5)))
}

/// Starts a broker named `one` on the subject.
pub(crate) fn start(subject: &dyn Subject) -> Broker {
    subject.broker(builder("one"))
}

/// Subscription options with a name, which a group subscription requires.
pub(crate) fn named(name: &str, pattern: &str) -> SubscribeOptions {
    SubscribeOptions::new(pattern).name(name)
}

/// An event with a number as its payload.
pub(crate) fn numbered(event_type: &str, number: usize) -> Event {
    Event::builder(Source::System, event_type).payload(&number).build().expect("a valid event")
}

/// The payload of a numbered event.
pub(crate) fn number_of(event: &Event) -> usize {
    event.payload_as().expect("a numbered event")
}

/// `count` events of a type, numbered from 0.
pub(crate) fn events(event_type: &str, count: usize) -> Vec<Event> {
    (0..count).map(|number| numbered(event_type, number)).collect()
}

pub(crate) fn publish(broker: &Broker, event: Event) -> EventId {
    broker.publish(event).expect("it is accepted").id
}

pub(crate) fn publish_all(broker: &Broker, events: impl IntoIterator<Item = Event>) -> Ids {
    events.into_iter().map(|event| publish(broker, event)).collect()
}

/// The events that a handler was called with.
pub(crate) struct Calls {
    events: Receiver<Event>,
    /// Redelivered events that `read` received.
    repeated: RefCell<Vec<Event>>,
}

/// Subscribes a handler that accepts everything.
pub(crate) fn listen(broker: &Broker, options: SubscribeOptions) -> (SubscriptionId, Calls) {
    listen_with(broker, options, |_| ())
}

/// Subscribes a handler; its calls are recorded when they begin.
pub(crate) fn listen_with<R: IntoOutcome>(
    broker: &Broker,
    options: SubscribeOptions,
    handler: impl Fn(&Delivery<'_>) -> R + Send + Sync + 'static,
) -> (SubscriptionId, Calls) {
    let (sender, receiver) = channel();
    let id = broker
        .subscribe_with(options, move |delivery| {
            // The receiver is dropped when the case has ended.
            let _ = sender.send(delivery.event().clone());
            handler(delivery)
        })
        .expect("a subscription");
    (id, Calls { events: receiver, repeated: RefCell::default() })
}

impl Calls {
    pub(crate) fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("the handler is called")
    }

    /// Reads until each of these events has arrived, in any order, and returns them in the order of their first call.
    /// Panics at any other event. A redelivered event is allowed here.
    pub(crate) fn read(&self, ids: &Ids) -> Vec<Event> {
        let mut missing = ids.clone();
        let mut arrived = Vec::with_capacity(ids.len());
        while !missing.is_empty() {
            let Ok(event) = self.events.recv_timeout(PATIENCE) else {
                panic!("{} of {} events did not arrive, the first is {:?}", missing.len(), ids.len(), missing.first());
            };
            assert!(ids.contains(event.id()), "an unexpected event arrived: {event:?}");
            let first = missing.remove(event.id());
            if first { arrived.push(event) } else { self.repeated.borrow_mut().push(event) }
        }
        arrived
    }

    /// The calls that were not read yet.
    pub(crate) fn rest(&self) -> Vec<Event> {
        self.events.try_iter().collect()
    }

    /// Panics if a call was not read, unless it repeats one of `ids` and the provider is not exact.
    pub(crate) fn assert_no_more(&self, subject: &dyn Subject, ids: &Ids) {
        for event in self.rest().into_iter().chain(self.repeated.take()) {
            assert!(ids.contains(event.id()), "an unexpected event arrived: {event:?}");
            assert!(!subject.abilities().exact, "an event was delivered twice: {event:?}");
        }
    }
}

/// Stops a broker, and panics unless the drain was complete.
pub(crate) fn finish(broker: &Broker) {
    let report = broker.stop(DRAIN);
    assert!(report.is_clean(), "the drain was incomplete: {report:?}");
}

/// The verdict on one delivery.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) id: EventId,
    pub(crate) verdict: Verdict,
    pub(crate) attempts: u32,
    pub(crate) error: Option<String>,
}

/// The verdicts on the deliveries of one subscription.
pub(crate) struct Settlements(Receiver<Settlement>);

impl Settlements {
    pub(crate) fn of(broker: &Broker, name: &str) -> Self {
        let (sender, receiver) = channel();
        let name = name.to_owned();
        broker.on_settled(move |settled| {
            if settled.name == name {
                // The receiver is dropped when the case has ended.
                let _ = sender.send(Settlement {
                    id: settled.event.id().clone(),
                    verdict: settled.verdict,
                    attempts: settled.attempts,
                    error: settled.error.map(str::to_owned),
                });
            }
        });
        Self(receiver)
    }

    pub(crate) fn next(&self) -> Settlement {
        self.0.recv_timeout(PATIENCE).expect("a verdict")
    }
}

/// Blocks handlers until the gate is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<GateState>);

#[derive(Default)]
struct GateState {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Waits until the gate is open, at most 30 s, so that a failing case still ends.
    pub(crate) fn pass(&self) {
        let open = self.0.open.lock().expect("no panic under the lock");
        let waited = self.0.opened.wait_timeout_while(open, DRAIN, |open| !*open);
        drop(waited.expect("no panic under the lock"));
    }

    pub(crate) fn open(&self) {
        *self.0.open.lock().expect("no panic under the lock") = true;
        self.0.opened.notify_all();
    }
}

/// A sender with which a handler signals, and a function that waits for the signal.
pub(crate) fn signal() -> (Sender<()>, impl Fn()) {
    let (sender, receiver) = channel();
    (sender, move || receiver.recv_timeout(PATIENCE).expect("a signal"))
}

/// Polls a condition every 2 ms until it holds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The status of an event, as the broker reports it.
pub(crate) fn status(broker: &Broker, id: &EventId) -> Option<Status> {
    broker.get(id).expect("the back end answers").map(|event| event.status())
}

/// Waits until there are `count` dead letters, and returns them. A back end records a dead letter after the observers
/// ran.
pub(crate) fn dead_letters(broker: &Broker, count: usize) -> Vec<DeadLetter> {
    let held = || broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers");
    eventually("the dead letters are recorded", || held().len() == count);
    held()
}

/// Subscribes a handler that fails permanently until the returned flag is set.
pub(crate) fn fragile(broker: &Broker, name: &str, pattern: &str) -> Arc<AtomicBool> {
    let works = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&works);
    listen_with(broker, named(name, pattern), move |_| {
        if mended.load(Ordering::SeqCst) { Ok(()) } else { Err(HandlerError::permanent("not yet")) }
    });
    works
}

pub(crate) fn id_of(event: &Event) -> EventId {
    event.id().clone()
}
