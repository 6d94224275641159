//! PostgreSQL: each test uses its own database on the shared server of this process.

mod claims;
mod columns;
mod conformance;
mod connections;
mod example;
mod failover;
mod faults;
mod inserted;
mod pooled;
mod roles;
mod silence;
mod trouble;
mod upkeep;

use std::sync::OnceLock;

use eventbroker_conformance::postgres::Server;

/// The shared server of this process. A test that changes settings, stops the server or counts its connections starts
/// its own server.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}
