//! A request whose answer is lost takes effect at most once. A connection cut while idle fails no call.

use std::time::Duration;

use eventbroker::Broker;
use eventbroker_conformance::faults;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

/// A broker that connects through a proxy.
fn start(server: &Server, lease_time: Duration) -> (Broker, Proxy) {
    let proxy = Proxy::to(server.port());
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let provider = Redis::new(url).lease_time(lease_time).max_len(0).open().expect("it opens");
    (Broker::builder().provider(provider).start().expect("it starts"), proxy)
}

#[test]
fn a_lost_reply_loses_nothing_and_repeats_nothing() {
    let server = Server::start();
    let (broker, proxy) = start(&server, faults::LEASE);
    faults::lost_answers(&broker, &proxy);
}

#[test]
fn a_connection_that_was_cut_while_idle_fails_no_call() {
    let server = Server::start();
    let (broker, proxy) = start(&server, Duration::from_secs(30));
    faults::cut_while_idle(&broker, &proxy);
}
