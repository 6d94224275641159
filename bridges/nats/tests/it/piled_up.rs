//! A partition's backlog is handled without a pause, although a member fetches only 256 messages of it at a time.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, start};
use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

/// Eighty times the messages of a partition that a member fetches at a time.
const EVENTS: u64 = 20_480;

#[test]
fn the_backlog_of_a_partition_is_handled_without_a_pause() {
    let server = Server::start();
    let broker = start(&Nats::new(server.url()).partitions(1));
    let options = || SubscribeOptions::new("work.*").name("all").ordered_across_instances();
    let id = broker.subscribe_with(options(), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    for some in 0..EVENTS / 1_024 {
        let events = (0..1_024).map(|number| {
            let event = Event::builder(Source::System, "work.it").key(format!("key {}", number % 50));
            event.payload(&(some * 1_024 + number)).build().expect("a valid event")
        });
        assert!(broker.publish_batch(events).iter().all(Result::is_ok));
    }
    let (sender, calls) = channel();
    let began = Instant::now();
    broker.subscribe_with(options(), move |_| sender.send(()).expect("the test counts")).expect("a subscription");
    (0..EVENTS).for_each(|_| calls.recv_timeout(PATIENCE).expect("the handler is called"));
    let took = began.elapsed();
    // Without a pause this takes 1 to 2 s. A member that polls only at intervals needs more than 10 s.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(broker.stop(PATIENCE).is_clean());
}
