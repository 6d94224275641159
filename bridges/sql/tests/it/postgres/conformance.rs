//! The suite of all providers on PostgreSQL: brokers that share a database, each with its own connections.

use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::{Abilities, Subject, conformance_tests};

use super::server;

/// The address of a database.
struct Postgres(String);

impl Subject for Postgres {
    fn abilities(&self) -> Abilities {
        Abilities::shared()
    }

    fn provider(&self) -> Provider {
        let postgres = eventbroker_sql::Postgres::new(&self.0).lease_time(Duration::from_secs(5));
        postgres.open().expect("it opens")
    }
}

conformance_tests!(|| Postgres(server().database()));
