//! The server refuses writes while its disk is full. No event is lost, and publishing resumes when the disk has room.

use std::time::Duration;

use eventbroker_conformance::disk::Disk;
use eventbroker_conformance::load;
use eventbroker_conformance::redis::Server;
use eventbroker_conformance::watch::wait_until;
use eventbroker_redis::Redis;

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let Some(disk) = Disk::new(5) else {
        println!("left out: mounting a file system is not permitted here");
        return;
    };
    let server = Server::with(&["--dir", &disk.path().display().to_string(), "--auto-aof-rewrite-percentage", "0"]);
    let redis = Redis::new(server.url()).lease_time(Duration::from_secs(2));
    let broker = load::start(redis.open().expect("it opens"));
    load::run("a full disk", &broker, 20_000, |load| {
        wait_until("the disk is full", || load.last_error().contains("MISCONF"));
        wait_until("publishers give up", || load.unknown() > 0);
        disk.grow(256);
    });
    drop(server);
}
