//! The server is killed and started again, with two `appendfsync` settings. No event is lost, and the load resumes.
//! `DOWN=60` sets the seconds of each outage.

use std::time::Duration;

use eventbroker_conformance::faults;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

#[test]
fn a_crash_of_the_server_loses_nothing() {
    for fsync in ["everysec", "always"] {
        let server = Server::with(&["--appendfsync", fsync]);
        let redis = Redis::new(format!("redis://127.0.0.1:{}", server.port())).lease_time(Duration::from_secs(2));
        let name = format!("a crash, appendfsync {fsync}");
        faults::crashes(&name, redis.open().expect("it opens"), || server.crash(), || server.up());
    }
}
