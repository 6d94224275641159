//! While the server is unreachable, the bridge reconnects at a bounded rate and uses almost no processor time.

use eventbroker::Broker;
use eventbroker_conformance::faults;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

#[test]
fn reconnecting_is_bounded_and_retries_wait_while_the_server_is_away() {
    let _process = crate::process();
    let server = Server::start();
    let proxy = Proxy::to(server.port());
    let provider = Redis::new(format!("redis://127.0.0.1:{}", proxy.port())).max_len(0).open().expect("it opens");
    let broker = Broker::builder().provider(provider).start().expect("it starts");
    faults::away(&broker, &proxy);
}
