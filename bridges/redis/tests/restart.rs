//! A server that is killed and started again, with either way of writing its log: nothing is lost, and everything goes on soon.
//! `DOWN=60` has it away for so many seconds each time.

use std::thread;
use std::time::Duration;

use eventbroker_conformance::load;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

#[test]
fn a_crash_of_the_server_loses_nothing() {
    for fsync in ["everysec", "always"] {
        let server = Server::with(&["--appendfsync", fsync]);
        let redis = Redis::new(format!("redis://127.0.0.1:{}", server.port()));
        let broker = load::start(redis.lease_time(Duration::from_secs(2)).open().expect("it opens"));
        load::run(&format!("a crash, appendfsync {fsync}"), &broker, 100, |load| {
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
}
