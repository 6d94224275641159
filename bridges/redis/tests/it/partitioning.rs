//! The setting `partitions`: all instances must agree, the subscription options that it permits, and repartitioning.

use crate::support::{ask, client};
use eventbroker::provider::Provider;
use eventbroker_conformance::partitioning::{self, Partitionable};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::{OpenError, Redis};

#[derive(Clone)]
struct Stream(Redis);

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
    Stream(Redis::new(server.url()).stream_name(name))
}

#[test]
fn all_instances_must_agree_on_the_number_of_partitions() {
    let server = Server::start();
    partitioning::said_by_all(&Stream(Redis::new(server.url())), "resolvespec:events");
}

#[test]
fn an_order_that_cannot_be_kept_is_refused_with_the_name_of_the_setting() {
    let server = Server::start();
    partitioning::promised(&stream(&server, "one"), &stream(&server, "partitioned"));
}

#[test]
fn an_unused_stream_is_repartitioned() {
    let server = Server::start();
    partitioning::repartitioned(&Stream(stream(&server, "stream").0.max_len(0)));
    let partitions: u32 = ask(&mut client(&server.url()), &["GET", "stream:partitions"]);
    assert_eq!(partitions, 0);
}

#[test]
fn a_stream_with_waiting_deliveries_is_not_repartitioned() {
    let server = Server::start();
    partitioning::not_repartitioned_while_something_waits(&Stream(Redis::new(server.url())));
}
