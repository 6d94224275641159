//! Helpers of several tests: a plain client, and the helpers of all bridges.

pub(crate) mod client;

use std::sync::OnceLock;

use eventbroker::Broker;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

pub(crate) use eventbroker_conformance::watch::{PATIENCE, RECOVERY, event, last_error, listen, wait_until};

pub(crate) fn start(nats: &Nats) -> Broker {
    Broker::builder().instance_id("here").provider(nats.open().expect("it opens")).start().expect("it starts")
}

/// The shared server of this process, for tests that do not change or stop it and use their own stream.
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}
