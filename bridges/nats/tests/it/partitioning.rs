//! Partitions as settings. All instances configure the same number, a subscription with an order that is not kept is
//! refused, and an unused stream can be repartitioned.

use eventbroker::provider::Provider;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::partitioning::{self, Partitionable};
use eventbroker_nats::{Nats, OpenError};

#[derive(Clone)]
struct Stream(Nats);

impl Partitionable for Stream {
    fn partitioned(&self, partitions: u32) -> Self {
        Self(self.0.clone().partitions(partitions))
    }

    fn adopting(&self) -> Self {
        Self(self.0.clone().adopt_partitions(true))
    }

    fn open(&self) -> Result<Provider, String> {
        self.0.open().map_err(|error| match error {
            OpenError::Setting(problem) => problem,
            other => panic!("{other:?}"),
        })
    }

    fn repartition(&self) -> Result<(), String> {
        self.0.repartition().map_err(|error| error.to_string())
    }
}

fn stream(server: &Server, name: &str) -> Stream {
    Stream(Nats::new(server.url()).stream_name(name).subject_prefix(name))
}

#[test]
fn all_instances_need_the_same_number() {
    let server = Server::start();
    partitioning::said_by_all(&Stream(Nats::new(server.url())), "RESOLVESPEC_EVENTS");
}

#[test]
fn an_order_that_is_not_kept_is_refused_with_the_setting() {
    let server = Server::start();
    partitioning::promised(&stream(&server, "one"), &stream(&server, "partitioned"));
}

#[test]
fn an_unused_stream_is_repartitioned() {
    let server = Server::start();
    partitioning::repartitioned(&Stream(Nats::new(server.url()).stream_name("stream")));
}

#[test]
fn a_stream_with_waiting_deliveries_is_not_repartitioned() {
    let server = Server::start();
    partitioning::not_repartitioned_while_something_waits(&Stream(Nats::new(server.url())));
}
