//! Round trips in both directions, and the mapping of each attribute.

use eventbroker::{Event, Source, Status};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{decode, encode};

fn read(event: &Value) -> Event {
    decode(event.to_string().as_bytes(), Source::Internal).expect("it has a specversion").expect("it is valid")
}

fn refused(event: &Value) -> (String, String) {
    let fault = decode(event.to_string().as_bytes(), Source::Internal).expect("it has a specversion");
    let fault = fault.expect_err("it is refused");
    (fault.field.into_owned(), fault.problem)
}

fn written(event: &Event) -> Value {
    serde_json::from_slice(&encode(event)).expect("JSON")
}

/// The example of the specification with all optional attributes.
fn foreign() -> Value {
    json!({
        "specversion": "1.0",
        "id": "A234-1234-1234",
        "source": "https://github.com/cloudevents/spec/pull",
        "type": "com.github.pull_request.opened",
        "subject": "shop.orders/42/7",
        "time": "2018-04-05T17:31:00Z",
        "partitionkey": "42/7",
        "datacontenttype": "text/xml",
        "dataschema": "https://example.org/schema",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "sampled": true,
        "sequence": 12,
        "data": "<much wow=\"xml\"/>",
    })
}

#[test]
fn each_attribute_is_mapped_to_its_field() {
    let event = read(&foreign());
    assert_eq!(event.id().to_string(), "A234-1234-1234");
    assert_eq!(event.event_type().as_str(), "com.github.pull_request.opened");
    assert_eq!(event.source(), Source::Internal);
    assert_eq!((event.schema(), event.entity(), event.key()), (Some("shop"), Some("orders"), Some("42/7")));
    assert_eq!(event.payload().as_str(), r#""<much wow=\"xml\"/>""#);
    assert_eq!(event.metadata()["ce_source"], "https://github.com/cloudevents/spec/pull");
    assert_eq!(event.metadata()["sampled"], true);
    let json: Value = serde_json::from_slice(&event.to_json()).expect("JSON");
    assert_eq!(json["created_at"], "2018-04-05T17:31:00Z");
}

#[test]
fn a_foreign_event_survives_the_round_trip() {
    assert_eq!(written(&read(&foreign())), foreign());
}

#[test]
fn a_foreign_event_gets_the_source_given_and_keeps_it() {
    let line = foreign().to_string();
    let event = decode(line.as_bytes(), Source::Frontend).expect("a CloudEvent").expect("valid");
    assert_eq!(event.source(), Source::Frontend);
    assert_eq!(read(&written(&event)), event);
}

#[test]
fn an_eventbroker_source_is_parsed_into_instance_and_source() {
    let event = read(&json!({
        "specversion": "1.0", "id": "1", "type": "a.b.c", "source": "/eventbroker/node%201%2Feu/database",
    }));
    assert_eq!((event.instance_id(), event.source()), (Some("node 1/eu"), Source::Database));
    assert_eq!(event.metadata().len(), 0);
    assert_eq!(written(&event)["source"], "/eventbroker/node%201%2Feu/database");
}

#[test]
fn a_malformed_eventbroker_source_is_foreign() {
    for source in ["/eventbroker/a/b", "/eventbroker/a/b/database", "/eventbroker/database", "/eventbroker/%zz/system"]
    {
        let event = read(&json!({ "specversion": "1.0", "id": "1", "type": "a.b.c", "source": source }));
        assert_eq!(event.metadata()["ce_source"], source);
        assert_eq!(written(&event)["source"], source);
    }
}

#[test]
fn binary_data_survives_the_round_trip() {
    let event = json!({
        "specversion": "1.0", "id": "1", "type": "a.b.c", "source": "urn:x", "time": "2018-04-05T17:31:00Z",
        "data_base64": "AAEC/w==",
    });
    assert_eq!(read(&event).payload().as_str(), "\"AAEC/w==\"");
    assert_eq!(written(&read(&event)), event);
}

#[test]
fn an_event_without_time_gets_the_current_time() {
    let before = std::time::SystemTime::now();
    let event = read(&json!({ "specversion": "1.0", "id": "1", "type": "a.b.c", "source": "urn:x" }));
    assert!(event.created_at() >= before);
}

#[test]
fn the_attribute_at_fault_is_named() {
    let with = |name: &str, value: Value| {
        let mut event = foreign();
        event[name] = value;
        refused(&event)
    };
    assert_eq!(with("specversion", "0.3".into()).0, "specversion");
    assert_eq!(with("id", Value::Null), ("id".into(), "is required".into()));
    assert_eq!(with("source", "".into()), ("source".into(), "is required".into()));
    assert_eq!(with("type", "a..b".into()), ("type".into(), "segment 2 is empty".into()));
    assert_eq!(with("time", "yesterday".into()).0, "time");
    assert_eq!(with("partitionkey", "a\nb".into()).0, "partitionkey");
    assert_eq!(with("subject", 7.into()), ("subject".into(), "is not a string".into()));
    assert_eq!(with("data_base64", "AAEC".into()).0, "data_base64");
    assert_eq!(with("ebretrycount", "many".into()).0, "ebretrycount");
    assert_eq!(with("ebstatus", "lost".into()).0, "ebstatus");
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    assert_eq!(with("data", serde_json::from_str(&deep).expect("JSON")).0, "data");
}

#[test]
fn a_line_without_specversion_is_not_a_cloud_event() {
    assert!(decode(br#"{"id":"1","payload":{"specversion":"1.0"}}"#, Source::Internal).is_none());
    assert!(decode(b"[1]", Source::Internal).is_none());
    assert!(decode(b"nonsense \"specversion\"", Source::Internal).is_none());
}

#[test]
fn attributes_obey_the_specification() {
    let event = Event::builder(Source::System, "a.b.c")
        .metadata("table_name", "users")
        .metadata("tablename", "users")
        .metadata("id", "other")
        .metadata("big", 1_u64 << 40)
        .metadata("roles", json!(["a"]))
        .user_id(1 << 40)
        .build()
        .expect("valid");
    let written = written(&event);
    let rest: Value = serde_json::from_str(written["ebmetadata"].as_str().expect("a text")).expect("JSON");
    assert_eq!(rest, json!({ "table_name": "users", "id": "other", "big": 1_u64 << 40, "roles": ["a"] }));
    assert_eq!(written["tablename"], "users");
    let is_valid = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    assert!(written.as_object().expect("an object").keys().all(|name| is_valid(name)));
    assert_eq!(read(&written), event);
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "shop", "orders", "create", "a.b", "x/y", "/", "a.b/c", "ü %"])
        .prop_map(str::to_owned)
}

fn entry() -> impl Strategy<Value = (String, Value)> {
    let names = vec![
        "ce_source",
        "ce_subject",
        "ce_datacontenttype",
        "ce_dataschema",
        "ce_data_base64",
        "traceparent",
        "ebmetadata",
        "ebfoo",
        "id",
        "data_base64",
        "Upper",
        "partitionkey",
        "x1",
    ];
    let values = vec![
        json!("urn:x"),
        json!("/eventbroker/a/system"),
        json!("a.b"),
        json!("a.b/c"),
        json!("shop.orders/k"),
        json!(""),
        json!(true),
        json!(false),
        json!(null),
        json!(7),
        json!(5_000_000_000_u64),
        json!(1.5),
        json!({"a": [1]}),
        json!("a\nb"),
    ];
    (prop::sample::select(names).prop_map(str::to_owned), prop::sample::select(values))
}

prop_compose! {
    fn any_event()(
        source in prop::sample::select(vec![Source::Database, Source::Websocket, Source::System, Source::Internal]),
        event_type in prop::sample::select(vec!["a", "a.b", "shop.orders.create", "a.b.c.d"]),
        names in [name(), name(), name(), name(), name(), name()],
        payload in prop::sample::select(vec!["null", "\"AAEC\"", "{\"a\":1.50}", "[]"]),
        user in prop::sample::select(vec![0_i64, 7, i64::MIN, i64::MAX]),
        status in prop::sample::select(vec![Status::Pending, Status::Processing, Status::Completed, Status::Failed]),
        error in prop::option::of(name()),
        metadata in prop::collection::vec(entry(), 0..5),
        nanos in any::<u64>(),
    ) -> Event {
        let [schema, entity, operation, key, session, instance] = names;
        let mut builder = Event::builder(source, event_type)
            .schema(schema).entity(entity).operation(operation).key(key).session_id(session).instance_id(instance)
            .payload_json(payload).user_id(user)
            .created_at(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(nanos));
        for (name, value) in metadata {
            builder = builder.metadata(name, value);
        }
        builder.build().expect("valid").with_status(status, error)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_event_survives_the_round_trip(event in any_event()) {
        let line = encode(&event);
        let again = decode(&line, Source::Internal).expect("a CloudEvent").expect("valid");
        prop_assert_eq!(&again, &event, "{}", String::from_utf8_lossy(&line));
    }
}
