//! The suite of all providers, on streams that three servers of a cluster keep.

use std::sync::OnceLock;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::nats::Cluster;
use eventbroker_conformance::{Abilities, Subject, conformance_tests};

/// One cluster for all cases; each has a stream of its own.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

struct Nats(String);

impl Subject for Nats {
    fn abilities(&self) -> Abilities {
        Abilities {
            ordered: true,
            whole_order: true,
            free_members: true,
            exact: true,
            durable: true,
            across_instances: true,
            groups: true,
            broadcast: true,
            query: true,
            start_positions: true,
            durable_broadcast: true,
            operator: true,
            ..Abilities::default()
        }
    }

    fn provider(&self) -> Provider {
        let nats = eventbroker_nats::Nats::new(cluster().url()).stream_name(&self.0).subject_prefix(&self.0);
        nats.replicas(3).lease_time(Duration::from_secs(5)).open().expect("it opens")
    }
}

conformance_tests!(|| Nats(cluster().server(0).fresh_name()));
