//! The server is frozen with its connections open, and continues. Late answers are not taken for answers to other
//! requests. `DOWN=60` sets the seconds of the freeze.

use std::time::Duration;

use eventbroker_conformance::faults;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

#[test]
fn a_frozen_server_loses_nothing() {
    let server = Server::start();
    let redis = Redis::new(format!("redis://127.0.0.1:{}", server.port())).lease_time(Duration::from_secs(2));
    faults::stands_still(redis.open().expect("it opens"), |frozen| server.freeze(frozen));
}
