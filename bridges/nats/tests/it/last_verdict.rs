//! The verdict of a handler that still runs when its subscription is removed counts, also when partitions have owners.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use eventbroker::{Broker, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::watch::{PATIENCE, event, listen};
use eventbroker_nats::Nats;

fn start(nats: &Nats) -> Broker {
    Broker::builder().provider(nats.open().expect("it opens")).start().expect("it starts")
}

#[test]
fn a_verdict_counts_after_the_subscription_was_removed() {
    let server = Server::start();
    let nats = Nats::new(server.url()).partitions(3);
    let broker = start(&nats);
    let options = || SubscribeOptions::new("last.*").name("all");
    let ((begun, calls), (go_on, goes_on)) = (channel(), channel::<()>());
    let goes_on = Arc::new(Mutex::new(goes_on));
    let id = broker
        .subscribe_with(options(), move |_| {
            begun.send(()).expect("the test waits for it");
            goes_on.lock().expect("no panic under the lock").recv_timeout(PATIENCE).expect("the test sends it");
        })
        .expect("a subscription");
    broker.publish(event("last.it")).expect("it is accepted");
    calls.recv_timeout(PATIENCE).expect("a call");
    thread::scope(|scope| {
        let removal = scope.spawn(|| broker.unsubscribe(id));
        while !broker.stats().subscriptions.is_empty() {
            thread::yield_now();
        }
        // The bridge works in the order of the calls: once these are registered, it has received the removal.
        for name in ["one", "two", "three"] {
            listen(&broker, SubscribeOptions::new("other.*").name(name));
        }
        go_on.send(()).expect("the handler waits");
        removal.join().expect("no panic").expect("it is there");
    });
    assert!(broker.stop(PATIENCE).is_clean());

    let broker = start(&nats);
    let calls = listen(&broker, options());
    let next = broker.publish(event("last.it")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE).expect("a call"), next, "the first was handled");
    assert!(broker.stop(PATIENCE).is_clean());
}
