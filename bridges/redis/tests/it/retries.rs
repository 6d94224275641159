//! A stream with a subscription that fails, and queries for its retries at the server.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use eventbroker::{Broker, EventId, RetryPolicy, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;
use redis::Connection;

use crate::support::{PATIENCE, ask, client, wait_until};

pub(crate) const LEASE: Duration = Duration::from_millis(500);
pub(crate) const DELAY: Duration = Duration::from_millis(1_500);
/// Longer than a test takes.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// A server with a stream, and the prefix of the stream's other keys.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) redis: Redis,
    prefix: &'static str,
    streams: &'static [&'static str],
}

impl Site {
    pub(crate) fn new(partitions: u32) -> Self {
        let server = Server::start();
        let redis = Redis::new(server.url()).stream_name("S").partitions(partitions).lease_time(LEASE);
        let (prefix, streams): (_, &[_]) = if partitions == 0 { ("S", &["S"]) } else { ("{S}", &["{S}:p0", "{S}:p1"]) };
        Self { server, redis, prefix, streams }
    }

    pub(crate) fn client(&self) -> Connection {
        client(&self.server.url())
    }

    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// The number of deferred retries of a subscription.
    pub(crate) fn later(&self, xgroup: &str) -> usize {
        ask(&mut self.client(), &["ZCARD", &self.key(&format!("later:{xgroup}"))])
    }

    pub(crate) fn wait_until_deferred(&self) {
        wait_until("its retry is deferred", || self.later(XGROUP) == 1);
    }

    /// The number of pending entries, in the streams and in the stream of repeated deliveries.
    pub(crate) fn pending(&self) -> usize {
        let mut client = self.client();
        let again = self.key(&format!("again:{XGROUP}"));
        let keys = self.streams.iter().copied().chain([&*again]);
        keys.map(|key| {
            ask::<(usize, redis::Value, redis::Value, redis::Value)>(&mut client, &["XPENDING", key, XGROUP]).0
        })
        .sum()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        ask(&mut self.client(), &["EXISTS", &self.key(name)])
    }

    /// Whether the status of an event marks a deferred or repeated delivery.
    pub(crate) fn is_again(&self, id: &EventId) -> bool {
        ask(&mut self.client(), &["HEXISTS", &self.key(&format!("status:{id}")), &format!("again:{XGROUP}")])
    }
}

/// The consumer group of the subscription that fails.
pub(crate) const XGROUP: &str = "resolvespec-workers.failing";

pub(crate) fn failing(retries: u32, delay: Duration) -> SubscribeOptions {
    SubscribeOptions::new("fail.*").name("failing").retry(RetryPolicy::fixed(retries, delay))
}

/// Subscribes a handler that fails before the attempt `succeeds`. Returns each attempt and its time.
pub(crate) fn fail_before(broker: &Broker, options: SubscribeOptions, succeeds: u32) -> Receiver<(u32, Instant)> {
    let (sender, attempts) = channel();
    broker
        .subscribe_with(options, move |delivery| {
            // The test drops the receiver when it has enough.
            let _ = sender.send((delivery.attempt(), Instant::now()));
            if delivery.attempt() < succeeds { Err(format!("no {}", delivery.attempt())) } else { Ok(()) }
        })
        .expect("a subscription");
    attempts
}

pub(crate) fn next(attempts: &Receiver<(u32, Instant)>) -> (u32, Instant) {
    attempts.recv_timeout(PATIENCE).expect("the handler is called")
}

pub(crate) fn status(broker: &Broker, id: &EventId) -> (eventbroker::Status, u32) {
    let event = broker.get(id).expect("it answers").expect("it is known");
    (event.status(), event.retry_count())
}
