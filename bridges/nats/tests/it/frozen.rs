//! A server that is frozen with its connections open, and continues. Late answers are not taken for answers to other
//! requests. `DOWN=60` sets the seconds of the freeze.

use std::time::Duration;

use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

#[test]
fn a_frozen_server_loses_no_event() {
    let server = Server::start();
    let nats = Nats::new(server.url()).lease_time(Duration::from_secs(2));
    faults::stands_still(nats.open().expect("it opens"), |frozen| server.freeze(frozen));
}
