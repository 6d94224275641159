//! The suite of all providers, on brokers that share a stream. Each broker has its own connections.

use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::{Abilities, Subject, conformance_tests};

use crate::support::server;

/// The name of a stream.
struct Redis(String);

impl Subject for Redis {
    fn abilities(&self) -> Abilities {
        Abilities::shared()
    }

    fn provider(&self) -> Provider {
        let redis = eventbroker_redis::Redis::new(server().url()).stream_name(&self.0);
        redis.lease_time(Duration::from_secs(5)).open().expect("it opens")
    }
}

conformance_tests!(|| Redis(server().stream()));
