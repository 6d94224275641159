//! A backlog of large events: a member handles the first before it has read all.

use std::sync::mpsc::channel;

use crate::support::{PATIENCE, ask, client, start};
use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

const EVENTS: usize = 100;

#[test]
fn the_first_of_many_large_events_is_handled_before_all_are_read() {
    let server = Server::start();
    let stream = server.stream();
    let redis = || Redis::new(server.url()).stream_name(&stream);
    let options = || SubscribeOptions::new("large.*").name("all");
    let publisher = start(&redis());
    publisher.subscribe_with(options(), |_| ()).expect("a subscription");
    assert!(publisher.stop(PATIENCE).is_clean());

    let publisher = start(&redis());
    for _ in 0..EVENTS {
        let event = Event::builder(Source::System, "large.it").payload(&"x".repeat(500_000));
        publisher.publish(event.build().expect("a valid event")).expect("it is stored");
    }
    assert!(publisher.stop(PATIENCE).is_clean());

    let broker = start(&redis());
    let (sender, reads) = channel();
    let (url, key) = (server.url(), stream.clone());
    let handler = move |_: &eventbroker::Delivery| {
        let mut client = client(&url);
        let pending: Vec<redis::Value> =
            ask(&mut client, &["XPENDING", &key, "resolvespec-workers.all", "-", "+", "1000"]);
        // The test drops the receiver when it has enough.
        let _ = sender.send(pending.len());
    };
    broker.subscribe_with(options().concurrency(1), handler).expect("a subscription");
    let pending = reads.recv_timeout(PATIENCE).expect("a call");
    assert!(pending < EVENTS, "all of them, {pending}, were read before the first was handled");
    assert!(broker.stop(PATIENCE).is_clean());
}
