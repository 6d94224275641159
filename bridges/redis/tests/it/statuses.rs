//! The setting `status` selects the statuses that the server stores.

use crate::support::{ask, client};
use eventbroker_conformance::redis::Server;
use eventbroker_conformance::statuses::{self, StatusSetting};
use eventbroker_redis::{Redis, Status};

/// The number of events with a stored status.
fn stored(server: &Server) -> usize {
    ask::<Vec<String>>(&mut client(&server.url()), &["KEYS", "*:status:*"]).len()
}

#[test]
fn the_setting_selects_the_stored_statuses() {
    for (status, kept) in [(Status::Full, StatusSetting::All), (Status::Failures, StatusSetting::Failures)] {
        let server = Server::start();
        let redis = Redis::new(server.url()).max_len(0).status(status);
        statuses::statuses_are_stored(kept, || redis.open().expect("it opens"), || stored(&server));
    }
}
