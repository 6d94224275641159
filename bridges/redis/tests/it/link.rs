//! A link that is down without an error at either end: a link to a network namespace, or a proxy that cuts where
//! namespaces are not permitted. `DOWN=60` sets the seconds of the outage.

use std::time::Duration;

use eventbroker_conformance::faults;
use eventbroker_conformance::network::Network;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

#[test]
fn a_link_that_is_down_loses_nothing() {
    let open = |host: &str, port: u16| {
        let redis = Redis::new(format!("redis://{host}:{port}"));
        redis.lease_time(Duration::from_secs(2)).open().expect("it opens")
    };
    if let Some(network) = Network::new() {
        let server = Server::run_by(&network.runner(), &["--bind", network.there(), "--protected-mode", "no"]);
        faults::link_down("a link that is down", open(network.there(), server.port()), |is_up| network.set_up(is_up));
    } else {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        let name = "a proxy that cuts (there may be no network namespace here)";
        faults::link_down(name, open("127.0.0.1", proxy.port()), |is_up| proxy.set_down(!is_up));
    }
}
