//! A network that is down without an error: a link to a network namespace where the machine permits one, else a proxy
//! that cuts connections. `DOWN=60` sets the seconds of the outage.

use std::time::Duration;

use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::network::Network;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_nats::Nats;

#[test]
fn a_link_that_is_down_loses_no_event() {
    let open = |host: &str, port: u16| {
        let nats = Nats::new(format!("nats://{host}:{port}"));
        nats.lease_time(Duration::from_secs(2)).open().expect("it opens")
    };
    if let Some(network) = Network::new() {
        let server = Server::run_by(&network.runner(), network.there());
        faults::link_down("a link that is down", open(network.there(), server.port()), |is_up| network.set_up(is_up));
    } else {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        let name = "a proxy that cuts (there may be no network namespace here)";
        faults::link_down(name, open("127.0.0.1", proxy.port()), |is_up| proxy.set_down(!is_up));
    }
}
