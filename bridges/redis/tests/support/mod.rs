//! What several tests need: a client of their own, events, and waiting.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod load;
pub(crate) mod traces;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Event, EventId, Scope, Source, SubscribeOptions};
use eventbroker_redis::Redis;
use redis::Connection;

/// Nothing takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// So soon after a fault everything goes on.
pub(crate) const RECOVERY: Duration = Duration::from_secs(3);

pub(crate) fn client(url: &str) -> Connection {
    redis::Client::open(url).and_then(|client| client.get_connection()).expect("it connects")
}

pub(crate) fn ask<T: redis::FromRedisValue>(connection: &mut Connection, command: &[&str]) -> T {
    let mut asked = redis::cmd(command[0]);
    command[1..].iter().for_each(|argument| _ = asked.arg(*argument));
    asked.query(connection).expect("an answer")
}

pub(crate) fn start(redis: &Redis) -> Broker {
    Broker::builder().provider(redis.open().expect("it opens")).start().expect("it starts")
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

/// How many events a subscription of this process alone has handled.
pub(crate) fn count_local(broker: &Broker) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&count);
    broker
        .subscribe_with(SubscribeOptions::new("local.*").name("local").scope(Scope::Local), move |_| {
            shared.fetch_add(1, Ordering::SeqCst);
        })
        .expect("a subscription");
    count
}

pub(crate) fn event(event_type: &str) -> Event {
    Event::builder(Source::System, event_type).build().expect("a valid event")
}

/// Waits until the last look at every subscription of a stream has seen so many entries.
pub(crate) fn wait_for_look(client: &mut Connection, stream: &str, added: usize) {
    let added = added.to_string();
    wait_until("it is looked at", || {
        let seen: Vec<String> = ask(client, &["HVALS", &format!("{stream}:seen")]);
        !seen.is_empty() && seen.iter().all(|seen| !seen.starts_with('-') && seen.split(' ').nth(4) == Some(&added))
    });
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it did not come to pass: {what}");
        thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}
