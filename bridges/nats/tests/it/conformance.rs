//! The suite of all providers on NATS: brokers that share a stream, each with its own connection.

use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::{Abilities, Subject, conformance_tests};

use crate::support::server;

/// The name of a stream.
struct Nats(String);

impl Subject for Nats {
    fn abilities(&self) -> Abilities {
        Abilities::shared()
    }

    fn provider(&self) -> Provider {
        let nats = eventbroker_nats::Nats::new(server().url()).stream_name(&self.0).subject_prefix(&self.0);
        nats.lease_time(Duration::from_secs(5)).open().expect("it opens")
    }
}

conformance_tests!(|| Nats(server().fresh_name()));
