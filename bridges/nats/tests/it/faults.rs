//! A request whose answer is lost may have taken effect, and does not take effect twice. The loss of an idle connection
//! fails no call.

use std::time::Duration;

use eventbroker::Broker;
use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_nats::Nats;

/// A broker whose connections go through a proxy.
fn start(server: &Server, lease_time: Duration) -> (Broker, Proxy) {
    let proxy = Proxy::to(server.port());
    let url = format!("nats://127.0.0.1:{}", proxy.port());
    let provider = Nats::new(url).lease_time(lease_time).open().expect("it opens");
    (Broker::builder().provider(provider).start().expect("it starts"), proxy)
}

#[test]
fn a_lost_answer_loses_and_repeats_no_event() {
    let server = Server::start();
    let (broker, proxy) = start(&server, faults::LEASE);
    faults::lost_answers(&broker, &proxy);
}

#[test]
fn the_loss_of_an_idle_connection_fails_no_call() {
    let server = Server::start();
    let (broker, proxy) = start(&server, Duration::from_secs(30));
    faults::cut_while_idle(&broker, &proxy);
}
