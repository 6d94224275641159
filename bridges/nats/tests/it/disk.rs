//! With a full disk the server does not answer publishes. No event is lost, and the load resumes when the disk has
//! space and the server has restarted.

use std::time::Duration;

use eventbroker_conformance::disk::Disk;
use eventbroker_conformance::load;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::watch::wait_until;
use eventbroker_nats::Nats;

#[test]
fn a_full_disk_loses_no_event() {
    let Some(disk) = Disk::new(24) else {
        println!("left out: mounting a file system is not permitted here");
        return;
    };
    let server = Server::in_store(disk.path());
    let nats = Nats::new(server.url()).lease_time(Duration::from_secs(2));
    let broker = load::start(nats.open().expect("it opens"));
    load::run("a full disk", &broker, 100_000, |load| {
        wait_until("publishers give up", || load.unknown() > 8);
        println!("reported: {}", load.last_error());
        disk.grow(512);
        server.restart();
    });
    drop(server);
}
