//! What several tests need: a client of their own, events, and waiting.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod client;
pub(crate) mod load;
pub(crate) mod traces;

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Event, EventId, Source, SubscribeOptions};
use eventbroker_nats::Nats;

/// Nothing takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// So soon after a fault everything goes on.
pub(crate) const RECOVERY: Duration = Duration::from_secs(3);

pub(crate) fn start(nats: &Nats) -> Broker {
    Broker::builder().instance_id("here").provider(nats.open().expect("it opens")).start().expect("it starts")
}

/// The ids of the events that a subscription handles.
pub(crate) fn listen(broker: &Broker, options: SubscribeOptions) -> Receiver<EventId> {
    let (sender, calls) = channel();
    let handler = move |delivery: &eventbroker::Delivery| {
        // Nobody listens any more when the test has seen enough.
        let _ = sender.send(delivery.event().id().clone());
    };
    broker.subscribe_with(options, handler).expect("a subscription");
    calls
}

pub(crate) fn event(event_type: &str) -> Event {
    Event::builder(Source::System, event_type).build().expect("a valid event")
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it did not come to pass: {what}");
        thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}
