//! What several tests need: a client of their own, and what tests of all bridges do.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

pub(crate) mod client;

use eventbroker::Broker;
use eventbroker_nats::Nats;

pub(crate) use eventbroker_conformance::watch::{PATIENCE, RECOVERY, event, last_error, listen, wait_until};

pub(crate) fn start(nats: &Nats) -> Broker {
    Broker::builder().instance_id("here").provider(nats.open().expect("it opens")).start().expect("it starts")
}
