//! While the server is unreachable, the bridge reconnects at a bounded rate and uses almost no processor time.

use eventbroker::Broker;
use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_nats::Nats;

#[test]
fn an_unreachable_server_is_asked_seldom() {
    let _process = crate::process();
    let server = Server::start();
    let proxy = Proxy::to(server.port());
    let provider = Nats::new(format!("nats://127.0.0.1:{}", proxy.port())).open().expect("it opens");
    let broker = Broker::builder().provider(provider).start().expect("it starts");
    faults::away(&broker, &proxy);
}
