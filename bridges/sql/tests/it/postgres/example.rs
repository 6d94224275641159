//! The example does what it says: two processes share the events of a database, and each event is handled by one of them.
//!
//! The tests of the whole package build it; for this one alone, `cargo build -p eventbroker-sql --features postgres --example postgres`.

use eventbroker_conformance::example;
use eventbroker_conformance::postgres::Server;

#[test]
fn the_example_handles_each_of_its_events_once() {
    let server = Server::start();
    example::handles_each_event_once("postgres", &server.database());
}
