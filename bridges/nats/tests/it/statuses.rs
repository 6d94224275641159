//! The `status` setting decides which statuses the bridge writes to the server.

use crate::support::client::Client;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::statuses::{self, StatusSetting};
use eventbroker_nats::{Nats, Status};

/// The number of events with a status record on the server.
fn notes(server: &Server) -> usize {
    let asked = r#"{"subjects_filter":"events-state.status.>"}"#;
    let info = Client::of(server).ask("$JS.API.STREAM.INFO.RESOLVESPEC_EVENTS_STATE", "", asked);
    info.matches("\"events-state.status.").count()
}

#[test]
fn only_what_the_setting_says_is_written_down() {
    for (status, kept) in [
        (Status::Full, StatusSetting::All),
        (Status::Failures, StatusSetting::Failures),
        (Status::Off, StatusSetting::Nothing),
    ] {
        let server = Server::start();
        let nats = Nats::new(server.url()).status(status);
        statuses::statuses_are_stored(kept, || nats.open().expect("it opens"), || notes(&server));
    }
}

#[test]
fn with_no_notes_dead_letters_are_requeued() {
    let server = Server::start();
    let provider = Nats::new(server.url()).status(Status::Off).open().expect("it opens");
    statuses::requeued_without_notes(provider, || notes(&server));
}
