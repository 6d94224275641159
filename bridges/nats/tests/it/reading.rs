//! A read request whose connection is lost is sent once more, so that the caller gets an answer.

use crate::support::{PATIENCE, event, start, wait_until};
use eventbroker::query::Filter;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_nats::Nats;

#[test]
fn a_read_is_repeated_when_its_connection_is_lost() {
    let server = Server::start();
    let proxy = Proxy::to(server.port());
    let broker = start(&Nats::new(format!("nats://127.0.0.1:{}", proxy.port())));
    let id = broker.publish(event("a.b")).expect("it is accepted").id;
    for _ in 0..10 {
        proxy.cut_answers(1);
        let listed = broker.list(&Filter::default()).expect("it answers").events;
        assert!(listed.len() == 1 && *listed[0].id() == id, "{listed:?}");
        wait_until("an answer was cut", || proxy.answers_to_cut() == 0);
    }
    assert!(broker.stop(PATIENCE).is_clean());
}
