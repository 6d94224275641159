//! The `status` setting decides which statuses the bridge records on the server.

use crate::support::client::Client;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::statuses::{self, StatusSetting};
use eventbroker_nats::{Nats, Status};

/// The number of events with a status record on the server.
fn records(server: &Server) -> usize {
    let asked = r#"{"subjects_filter":"events-state.status.>"}"#;
    let info = Client::of(server).ask("$JS.API.STREAM.INFO.RESOLVESPEC_EVENTS_STATE", "", asked);
    info.matches("\"events-state.status.").count()
}

#[test]
fn the_setting_selects_the_recorded_statuses() {
    for (status, kept) in [(Status::Full, StatusSetting::All), (Status::Failures, StatusSetting::Failures)] {
        let server = Server::start();
        let nats = Nats::new(server.url()).status(status);
        statuses::statuses_are_stored(kept, || nats.open().expect("it opens"), || records(&server));
    }
}
