//! While the server is stopped, local subscriptions keep their rate, memory is bounded, and the bridge's threads use
//! little processor time. The buffer is sent soon after the server is back. `DOWN=60` sets the seconds of the outage.

use eventbroker::{Broker, Confirm};
use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

#[test]
fn local_deliveries_go_on_while_the_server_is_stopped() {
    let _process = crate::process();
    let server = Server::start();
    let provider = Nats::new(server.url()).open().expect("it opens");
    let broker = Broker::builder().confirm(Confirm::Buffered).provider(provider).start().expect("it starts");
    faults::stopped(&broker, || server.crash(), || server.up());
}
