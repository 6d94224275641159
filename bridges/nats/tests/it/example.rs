//! The example: two processes share the events of a stream, and each event is handled by one of them.

use eventbroker_conformance::example;
use eventbroker_conformance::nats::Server;

#[test]
fn the_example_handles_each_of_its_events_once() {
    let server = Server::start();
    assert!(example::handles_each_event_once("nats", &server.url()) >= 2, "both had a share");
}
