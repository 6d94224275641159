//! The stored form of entries, byte for byte: the Go original shares the stream.

use crate::support::{PATIENCE, ask, client, listen, start};
use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

/// An event, and the fields of its entry as an earlier version of the bridge has written them.
const EVENT: &str = r#"{"id":"0192d3a0-5f6e-7c0e-9a53-0f6a4e9d7c11","source":"database","type":"public.users.create","status":"pending","retry_count":0,"payload":{"name":"Ada"},"user_id":7,"session_id":"s1","instance_id":"go-1","schema":"public","entity":"users","operation":"create","created_at":"2024-10-28T12:34:56.123456789Z","metadata":{"table_name":"users"}}"#;
const FIELDS: [&str; 10] = [
    "id",
    "0192d3a0-5f6e-7c0e-9a53-0f6a4e9d7c11",
    "type",
    "public.users.create",
    "source",
    "database",
    "status",
    "pending",
    "instance_id",
    "go-1",
];

/// The fields of the only entry of a stream.
fn fields(server: &Server, stream: &str) -> Vec<String> {
    let mut entries: Vec<(String, Vec<String>)> = ask(&mut client(&server.url()), &["XRANGE", stream, "-", "+"]);
    entries.pop().expect("an entry").1
}

/// A script stores an event that may exist.
#[test]
fn an_entry_has_the_recorded_bytes() {
    let server = Server::start();
    let event = Event::from_json(EVENT.as_bytes()).expect("an event");
    assert!(event.may_exist());
    let broker = start(&Redis::new(server.url()).stream_name("stream"));
    broker.publish(event).expect("it is accepted");
    assert!(broker.stop(PATIENCE).is_clean());
    assert_eq!(fields(&server, "stream"), [&["event", EVENT][..], &FIELDS].concat());
}

/// Plain commands append a new event, in the same form.
#[test]
fn a_new_event_is_stored_in_the_same_form() {
    let server = Server::start();
    let event = Event::builder(Source::Database, "public.users.create").instance_id("go-1").build().expect("an event");
    assert!(!event.may_exist());
    let broker = start(&Redis::new(server.url()).stream_name("stream"));
    broker.publish(event.clone()).expect("it is accepted");
    assert!(broker.stop(PATIENCE).is_clean());
    let (json, id) = (String::from_utf8(event.to_json()).expect("JSON"), event.id().to_string());
    let mut expected = [&["event", &json][..], &FIELDS].concat();
    expected[3] = &id;
    assert_eq!(fields(&server, "stream"), expected);
}

/// An earlier version could add the fields of a CloudEvents envelope to an entry.
#[test]
fn more_fields_of_an_entry_are_ignored() {
    const MORE: [&str; 4] = ["specversion", "1.0", "datacontenttype", "application/json"];
    let server = Server::start();
    let broker = start(&Redis::new(server.url()).stream_name("stream"));
    let calls = listen(&broker, SubscribeOptions::new("public.**").name("all"));
    let entry = [&["XADD", "stream", "*", "event", EVENT][..], &FIELDS, &MORE].concat();
    ask::<String>(&mut client(&server.url()), &entry);
    let id = calls.recv_timeout(PATIENCE).expect("it is called");
    assert_eq!(id.to_string(), FIELDS[1]);
    assert!(broker.stop(PATIENCE).is_clean());
}
