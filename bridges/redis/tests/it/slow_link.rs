//! On a slow link, a full read would outlast the member's lease. The member reads fewer entries at a time, so that
//! deliveries arrive within their lease.

use std::time::Duration;

use crate::support::{PATIENCE, start};
use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

const EVENTS: u32 = 30;
/// Bytes per event.
const SIZE: usize = 50_000;
/// Bytes per second: all events together take one lease (1 s).
const RATE: u64 = 1_500_000;

#[test]
fn entries_that_take_longer_to_read_than_a_lease_are_handled() {
    let server = Server::start();
    let proxy = Proxy::to(server.port());
    let stream = server.stream();
    let redis = |url: String| Redis::new(url).stream_name(&stream).lease_time(Duration::from_secs(1));
    let options = || SubscribeOptions::new("large.*").name("all").concurrency(1);
    let publisher = start(&redis(server.url()));
    publisher.subscribe_with(options(), |_| ()).expect("a subscription");
    assert!(publisher.stop(PATIENCE).is_clean());
    let publisher = start(&redis(server.url()));
    let payload = |number: u32| format!("{number:>0$}", SIZE);
    for number in 0..EVENTS {
        let event = Event::builder(Source::System, "large.it").key("one").payload(&payload(number));
        publisher.publish(event.build().expect("a valid event")).expect("it is stored");
    }
    assert!(publisher.stop(PATIENCE).is_clean());

    let broker = start(&redis(format!("redis://127.0.0.1:{}", proxy.port())));
    let (sender, calls) = std::sync::mpsc::channel();
    proxy.slow_down(RATE);
    let handler = move |delivery: &eventbroker::Delivery| {
        let payload: String = delivery.event().payload().parse().expect("a text");
        // The receiver is gone if the test has failed.
        let _ = sender.send(payload.trim().parse::<u32>().expect("a number"));
    };
    broker.subscribe_with(options(), handler).expect("a subscription");
    let came: Vec<u32> = (0..EVENTS).map(|_| calls.recv_timeout(PATIENCE).expect("a call")).collect();
    assert_eq!(came, (0..EVENTS).collect::<Vec<_>>());
    assert!(broker.stop(PATIENCE).is_clean());
}
