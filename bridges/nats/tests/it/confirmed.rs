//! With `confirm_acks` the bridge requests an answer to each acknowledgement, not only to the last one of a batch.

use std::sync::{Arc, Condvar, Mutex};

use crate::support::client::Client;
use crate::support::{PATIENCE, event, start, wait_until};
use eventbroker::SubscribeOptions;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

const EVENTS: usize = 200;

/// The number of acknowledgements sent, and the number of them that request an answer.
fn acknowledged(nats: impl Fn(Nats) -> Nats) -> (usize, usize) {
    let server = Server::start();
    let mut client = Client::of(&server);
    client.listen("$JS.ACK.RESOLVESPEC_EVENTS.>");
    let broker = start(&nats(Nats::new(server.url())));
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let closed = Arc::clone(&gate);
    broker
        .subscribe_with(SubscribeOptions::new("a.*").name("all"), move |_| {
            let open = closed.0.lock().expect("no panic under the lock");
            drop(closed.1.wait_while(open, |open| !*open).expect("no panic under the lock"));
        })
        .expect("a subscription");
    let accepted = broker.publish_batch((0..EVENTS).map(|_| event("a.b")));
    assert!(accepted.iter().all(Result::is_ok));
    wait_until("all are here", || broker.stats().bridge.is_some_and(|bridge| bridge.leases as usize == EVENTS));
    *gate.0.lock().expect("no panic under the lock") = true;
    gate.1.notify_all();
    assert!(broker.stop(PATIENCE).is_clean());
    let heard: Vec<bool> = (0..EVENTS).map(|_| client.next_asks_for_an_answer()).collect();
    (heard.len(), heard.iter().filter(|asks| **asks).count())
}

#[test]
fn each_acknowledgement_is_answered_if_that_is_wanted() {
    assert_eq!(acknowledged(|nats| nats.confirm_acks(true)), (EVENTS, EVENTS));
    let (sent, asked) = acknowledged(|nats| nats);
    assert!(sent == EVENTS && (1..EVENTS).contains(&asked), "{asked} of {sent}");
}
