//! A server that does not answer: what was asked may have been done, and is not done twice.

use std::time::Duration;

use eventbroker::Broker;
use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_nats::Nats;

#[test]
fn an_answer_that_is_lost_loses_nothing_and_repeats_nothing() {
    let server = Server::start();
    let proxy = Proxy::to(server.port());
    let url = format!("nats://127.0.0.1:{}", proxy.port());
    let provider = Nats::new(url).lease_time(Duration::from_millis(600)).open().expect("it opens");
    let broker = Broker::builder().provider(provider).start().expect("it starts");
    faults::lost_answers(&broker, &proxy);
}
