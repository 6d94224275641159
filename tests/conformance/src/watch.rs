//! Helpers of bridge tests: events, the calls of a handler, and waiting with a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Delivery, Event, EventId, Scope, Source, SubscribeOptions};

/// Deadline of every wait, generous for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Deadline for publishing and handling to resume after a fault.
pub const RECOVERY: Duration = Duration::from_secs(3);

/// An event of a type, without a payload.
pub fn event(event_type: &str) -> Event {
    Event::builder(Source::System, event_type).build().expect("a valid event")
}

/// Subscribes, and returns a channel of the ids handled.
pub fn listen(broker: &Broker, options: SubscribeOptions) -> Receiver<EventId> {
    let (sender, calls) = channel();
    let handler = move |delivery: &Delivery| {
        // The receiver is dropped when the test has ended.
        let _ = sender.send(delivery.event().id().clone());
    };
    broker.subscribe_with(options, handler).expect("a subscription");
    calls
}

/// Subscribes locally to `local.*`, and returns the count of events handled.
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

/// The last error of the bridge; empty if there is none.
pub fn last_error(broker: &Broker) -> String {
    broker.stats().bridge.and_then(|bridge| bridge.last_error).unwrap_or_default()
}

/// Polls a condition every 2 ms until it holds, and returns the time taken. Panics after [`PATIENCE`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}
