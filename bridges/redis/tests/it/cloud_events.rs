//! With `cloud_events`, each entry carries the attributes of a CloudEvent as fields.
//! Without the setting, an entry has the fields of the original.

use std::collections::BTreeMap;

use crate::support::{PATIENCE, ask, client, listen, start};
use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

/// The fields of the newest entry, except `event`, which holds the whole event.
fn newest(client: &mut redis::Connection) -> BTreeMap<String, String> {
    let entries: Vec<(String, Vec<(String, String)>)> =
        ask(client, &["XREVRANGE", "resolvespec:events", "+", "-", "COUNT", "1"]);
    let mut fields: BTreeMap<String, String> = entries[0].1.iter().cloned().collect();
    fields.remove("event").expect("the event");
    fields
}

#[test]
fn an_entry_is_a_cloud_event_to_others() {
    let server = Server::start();
    let mut client = client(&server.url());
    let broker = start(&Redis::new(server.url()).cloud_events(true));
    let calls = listen(&broker, SubscribeOptions::new("shop.*.*").name("all"));
    let payload = "{\"text\":\"\\\"quoted\\\" and \\u0000, ünïcode\"}";
    let build = || {
        let event = Event::builder(Source::Database, "shop.orders.create").key("7").instance_id("here");
        event.payload_json(payload).build().expect("a valid event")
    };
    // Plain commands append a new event. A script stores a copied event, which may already exist.
    let (new, original) = (build(), build());
    let copy = original.clone();
    assert!(!new.may_exist() && original.may_exist());
    for event in [new, copy] {
        let id = broker.publish(event).expect("it is accepted").id;
        assert_eq!(calls.recv_timeout(PATIENCE), Ok(id.clone()), "it is an event to us");
        let known = broker.get(&id).expect("it answers").expect("it is there");
        let known: serde_json::Value = serde_json::from_slice(&known.to_json()).expect("JSON");
        let (time, id) = (known["created_at"].as_str().expect("a time").to_owned(), id.to_string());
        let expected = [
            ("data", payload),
            ("datacontenttype", "application/json"),
            ("id", &id),
            ("instance_id", "here"),
            ("partitionkey", "7"),
            ("source", "database"),
            ("specversion", "1.0"),
            ("status", "pending"),
            ("subject", "shop.orders"),
            ("time", &time),
            ("type", "shop.orders.create"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(newest(&mut client), BTreeMap::from(expected));
    }
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn what_an_event_does_not_have_is_no_attribute() {
    let server = Server::start();
    let mut client = client(&server.url());
    let broker = start(&Redis::new(server.url()).cloud_events(true));
    broker.publish(Event::builder(Source::System, "shop").build().expect("a valid event")).expect("it is accepted");
    let names: Vec<String> = newest(&mut client).into_keys().collect();
    assert_eq!(names, ["id", "instance_id", "source", "specversion", "status", "time", "type"]);
    assert!(broker.stop(PATIENCE).is_clean());
}
