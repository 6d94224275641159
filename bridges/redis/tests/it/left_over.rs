//! A new member with the name of a dead one claims all deliveries that the dead one held, before newer events.

use std::time::Duration;

use crate::support::{PATIENCE, ask, client, listen};
use eventbroker::{Broker, Event, EventId, Source, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

const GROUP: &str = "resolvespec-workers.all";

fn start(redis: &Redis) -> Broker {
    let provider = redis.open().expect("it opens");
    Broker::builder().instance_id("worker").provider(provider).start().expect("it starts")
}

fn left_over_is_taken(partitions: u32, stream: &str, key: &str) {
    let server = Server::start();
    let redis = Redis::new(server.url()).stream_name(stream).partitions(partitions).lease_time(Duration::from_secs(60));
    let options = || SubscribeOptions::new("left.*").name("all").concurrency(1);
    let publish = |broker: &Broker, count: usize| -> Vec<EventId> {
        let event = || Event::builder(Source::System, "left.over").key("one").build().expect("a valid event");
        (0..count).map(|_| broker.publish(event()).expect("it is stored").id).collect()
    };
    let broker = start(&redis);
    let calls = listen(&broker, options());
    drop(calls);
    assert!(broker.stop(PATIENCE).is_clean());
    let broker = start(&redis);
    let mut all = publish(&broker, 20);
    assert!(broker.stop(PATIENCE).is_clean());
    let read: redis::Value =
        ask(&mut client(&server.url()), &["XREADGROUP", "GROUP", GROUP, "worker", "COUNT", "20", "STREAMS", key, ">"]);
    assert_ne!(read, redis::Value::Nil, "the consumer holds the entries");

    let broker = start(&redis);
    all.extend(publish(&broker, 5));
    let calls = listen(&broker, options());
    let handled: Vec<EventId> = (0..25).map(|_| calls.recv_timeout(PATIENCE).expect("a call")).collect();
    assert_eq!(handled, all);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_new_member_claims_them_from_a_shared_stream() {
    left_over_is_taken(0, "left", "left");
}

#[test]
fn a_new_member_claims_them_from_its_partition() {
    left_over_is_taken(1, "left", "{left}:p0");
}
