//! A server that stands still with all its connections, and goes on: late answers are not taken for those of other questions.
//! `DOWN=60` has it stand still for so many seconds.

use std::thread;
use std::time::Duration;

use eventbroker_conformance::load;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

#[test]
fn a_server_that_stands_still_loses_nothing() {
    let server = Server::start();
    let nats = Nats::new(server.url()).lease_time(Duration::from_secs(2));
    let broker = load::start(nats.open().expect("it opens"));
    load::run("a server that stands still", &broker, 100, |load| {
        server.freeze(true);
        thread::sleep(load::down(Duration::from_secs(3)));
        server.freeze(false);
        load.goes_on();
        assert!(load.unknown() > 0, "nobody waits longer than the deadline");
    });
}
