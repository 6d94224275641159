//! A server with streams in files is killed and started again. No event is lost, and the load resumes soon.
//! `DOWN=60` sets the seconds of the last outage.

use std::time::Duration;

use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

#[test]
fn a_crash_of_the_server_loses_no_event() {
    let server = Server::start();
    let nats = Nats::new(server.url()).lease_time(Duration::from_secs(2));
    faults::crashes("a crash", nats.open().expect("it opens"), || server.crash(), || server.up());
}
