//! The example does what it says: two processes share the events of a database, and each event is handled by one of them.
//!
//! A run of all tests of the package builds it; a run of this one needs `cargo build -p eventbroker-sql --features postgres --example postgres` first.

use eventbroker_conformance::example;

#[test]
fn the_example_handles_each_of_its_events_once() {
    example::handles_each_event_once("postgres", &super::server().database());
}
