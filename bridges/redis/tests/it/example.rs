//! Two processes of the example share the events of a stream, and one of them handles each event.

use eventbroker_conformance::example;
use eventbroker_conformance::redis::Server;

#[test]
fn the_example_handles_each_of_its_events_once() {
    let server = Server::start();
    assert!(example::handles_each_event_once("redis", &server.url()) >= 2, "both had a share");
}
