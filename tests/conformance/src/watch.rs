//! What tests of a bridge see of a broker from outside: events, what its handlers are called with, and waiting with a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Delivery, Event, EventId, Scope, Source, SubscribeOptions};

/// Nothing takes longer, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// So soon after a fault everything goes on.
pub const RECOVERY: Duration = Duration::from_secs(3);

/// An event of a type.
pub fn event(event_type: &str) -> Event {
    Event::builder(Source::System, event_type).build().expect("a valid event")
}

/// The ids of the events that a subscription handles.
pub fn listen(broker: &Broker, options: SubscribeOptions) -> Receiver<EventId> {
    let (sender, calls) = channel();
    let handler = move |delivery: &Delivery| {
        // Nobody listens any more when the test has seen enough.
        let _ = sender.send(delivery.event().id().clone());
    };
    broker.subscribe_with(options, handler).expect("a subscription");
    calls
}

/// How many events a subscription of this process alone has handled.
pub fn count_local(broker: &Broker) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&count);
    broker
        .subscribe_with(SubscribeOptions::new("local.*").name("local").scope(Scope::Local), move |_| {
            shared.fetch_add(1, Ordering::SeqCst);
        })
        .expect("a subscription");
    count
}

/// What the bridge has told last; nothing if it has told nothing.
pub fn last_error(broker: &Broker) -> String {
    broker.stats().bridge.and_then(|bridge| bridge.last_error).unwrap_or_default()
}

/// Waits for something that gives no signal, and returns how long it took. Panics after [`PATIENCE`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it did not come to pass: {what}");
        thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}
