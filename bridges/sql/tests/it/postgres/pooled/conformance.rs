//! The suite of all providers through the pooler: no notification comes through, so events of other instances are found by polling.

use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::{Abilities, Subject, conformance_tests};
use eventbroker_sql::Pooler;

use super::pooler;
use crate::postgres::server;

/// The address of a database behind the pooler.
struct Pooled(String);

impl Subject for Pooled {
    fn abilities(&self) -> Abilities {
        Abilities::shared()
    }

    fn provider(&self) -> Provider {
        let postgres = eventbroker_sql::Postgres::new(&self.0).pooler(Pooler::True).lease_time(Duration::from_secs(5));
        postgres.poll_interval(Duration::from_millis(50)).open().expect("it opens")
    }
}

conformance_tests!(|| Pooled(pooler().through(&server().database())));
