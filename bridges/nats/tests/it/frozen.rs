//! A server that stands still with all its connections, and goes on: late answers are not taken for those of other questions.
//! `DOWN=60` has it stand still for so many seconds.

use std::time::Duration;

use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

#[test]
fn a_server_that_stands_still_loses_nothing() {
    let server = Server::start();
    let nats = Nats::new(server.url()).lease_time(Duration::from_secs(2));
    faults::stands_still(nats.open().expect("it opens"), |frozen| server.freeze(frozen));
}
