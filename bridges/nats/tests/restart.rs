//! A server that is killed and started again, its streams in files: nothing is lost, and everything goes on soon.
//! `DOWN=60` has it away for so many seconds the last time.

use std::thread;
use std::time::Duration;

use eventbroker_conformance::load;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

#[test]
fn a_crash_of_the_server_loses_nothing() {
    let server = Server::start();
    let nats = Nats::new(server.url()).lease_time(Duration::from_secs(2));
    let broker = load::start(nats.open().expect("it opens"));
    load::run("a crash", &broker, 100, |load| {
        // At once, soon, and so late that publishers give up.
        for pause in [Duration::ZERO, Duration::from_millis(300), load::down(Duration::from_millis(1_500))] {
            server.crash();
            thread::sleep(pause);
            server.up();
            load.goes_on();
        }
        assert!(load.unknown() > 0, "nobody waits longer than the deadline");
    });
}
