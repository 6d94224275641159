//! The setting `status` selects the statuses that the server stores.

use crate::support::{ask, client};
use eventbroker_conformance::redis::Server;
use eventbroker_conformance::statuses::{self, StatusSetting};
use eventbroker_redis::{Redis, Status};

/// The number of events with a stored status.
fn notes(server: &Server) -> usize {
    ask::<Vec<String>>(&mut client(&server.url()), &["KEYS", "*:status:*"]).len()
}

#[test]
fn only_what_the_setting_says_is_written_down() {
    for (status, kept) in [
        (Status::Full, StatusSetting::All),
        (Status::Failures, StatusSetting::Failures),
        (Status::Off, StatusSetting::Nothing),
    ] {
        let server = Server::start();
        let redis = Redis::new(server.url()).max_len(0).status(status);
        statuses::statuses_are_stored(kept, || redis.open().expect("it opens"), || notes(&server));
    }
}

#[test]
fn with_no_notes_dead_letters_are_requeued() {
    let server = Server::start();
    let provider = Redis::new(server.url()).max_len(0).status(Status::Off).open().expect("it opens");
    statuses::requeued_without_notes(provider, || notes(&server));
}
