//! PostgreSQL: each test has a database of its own on the server of this process.

mod claims;
mod conformance;
mod example;
mod faults;
mod inserted;
mod trouble;
mod upkeep;

use std::sync::OnceLock;

use eventbroker_conformance::postgres::Server;

/// The server of this process. A test that changes its settings, stops it or counts its connections starts one of its own.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}
