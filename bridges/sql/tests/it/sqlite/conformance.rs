//! The suite of all providers on SQLite: brokers that share a file, each with its own connections.

use std::time::Duration;

use crate::support::Folder;
use eventbroker::provider::Provider;
use eventbroker_conformance::{Abilities, Subject, conformance_tests};

struct Sqlite(Folder);

impl Subject for Sqlite {
    fn abilities(&self) -> Abilities {
        Abilities::shared()
    }

    fn provider(&self) -> Provider {
        let sqlite = eventbroker_sql::Sqlite::new(self.0.file("events.db")).lease_time(Duration::from_secs(5));
        sqlite.open().expect("it opens")
    }
}

conformance_tests!(|| Sqlite(Folder::new()));
