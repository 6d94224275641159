//! A server that is killed and started again, its streams in files: nothing is lost, and everything goes on soon.
//! `DOWN=60` has it away for so many seconds the last time.

use std::time::Duration;

use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

#[test]
fn a_crash_of_the_server_loses_nothing() {
    let server = Server::start();
    let nats = Nats::new(server.url()).lease_time(Duration::from_secs(2));
    faults::crashes("a crash", nats.open().expect("it opens"), || server.crash(), || server.up());
}
