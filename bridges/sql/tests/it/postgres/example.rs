//! The example: two processes share the events of a database, and each event is handled by one of them.
//!
//! A run of all tests of the package builds the example. A run of this test alone needs this command first:
//! `cargo build -p eventbroker-sql --features postgres --example postgres`.

use eventbroker_conformance::example;

#[test]
fn the_example_handles_each_of_its_events_once() {
    example::handles_each_event_once("postgres", &super::server().database());
}
