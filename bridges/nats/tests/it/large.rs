//! Events so large that reading the backlog takes longer than a lease: each is delivered once and in order.

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::{PATIENCE, start};
use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

const EVENTS: usize = 100;

#[test]
fn large_events_are_handled_once_and_in_order() {
    let server = Server::start();
    let broker = start(&Nats::new(server.url()).lease_time(Duration::from_millis(500)));
    let options = || SubscribeOptions::new("a.*").name("all").queue_capacity(EVENTS);
    let id = broker.subscribe_with(options(), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    let text = "x".repeat(100_000);
    let sent: Vec<_> = (0..EVENTS)
        .map(|_| {
            let event = Event::builder(Source::System, "a.b").key("one").payload(&text).build().expect("a valid event");
            broker.publish(event).expect("it is accepted").id
        })
        .collect();
    let (sender, calls) = channel();
    broker
        .subscribe_with(options(), move |delivery| {
            sender.send(delivery.event().id().clone()).expect("the test listens")
        })
        .expect("a subscription");
    let came: Vec<_> = (0..EVENTS).map(|_| calls.recv_timeout(PATIENCE).expect("it is handled")).collect();
    let places: Vec<_> = came.iter().map(|id| sent.iter().position(|it| it == id)).collect();
    assert!(came == sent, "each once, in order: {places:?}");
    assert!(broker.stop(PATIENCE).is_clean());
    assert!(calls.try_recv().is_err(), "none comes again");
}
