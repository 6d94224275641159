//! What several tests need: a client of their own, events, and waiting.
// Each test uses a part of it.
#![allow(dead_code)]

pub(crate) mod load;

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Event, EventId, Source, SubscribeOptions};
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
