//! The JSON form of an event: the fields of the Go broker in its order, an exact round trip, and safe parsing of any
//! input.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventbroker::error::Problem;
use eventbroker::{Event, EventBuilder, Source, Status};
use proptest::prelude::*;
use serde_json::{Value, json};

fn nanos(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn text(event: &Event) -> String {
    String::from_utf8(event.to_json()).expect("UTF-8")
}

fn refused(json: impl AsRef<[u8]>) -> (&'static str, Problem) {
    let invalid = Event::from_json(json.as_ref()).expect_err("refused JSON");
    (invalid.field, invalid.problem)
}

/// A small valid event with the given fields beside the required ones.
fn with(fields: &str) -> String {
    format!(r#"{{"id":"1","source":"system","type":"a.b.c",{fields}}}"#)
}

/// An event as the Go broker writes it: HTML escapes, a local time zone, no key.
const FROM_GO: &str = r#"{"id":"f47ac10b-58cc-4372-a567-0e02b2c3d479","source":"database","type":"public.users.update","status":"failed","retry_count":2,"error":"handler failed after 3 attempts: \u003cboom\u003e","payload":{"id":7,"data":{"name":"A \u0026 B"}},"user_id":42,"session_id":"sess-1","instance_id":"web-1","schema":"public","entity":"users","operation":"update","created_at":"2025-12-30T23:36:11.12+02:00","processed_at":"2025-12-30T21:36:12Z","completed_at":"2025-12-30T21:36:13.000000001Z","metadata":{"table_name":"users","user_roles":["admin"]}}"#;

#[test]
fn an_event_of_the_go_broker_is_read() {
    let event = Event::from_json(FROM_GO.as_bytes()).expect("a valid event");
    assert_eq!(event.id().to_string(), "f47ac10b-58cc-4372-a567-0e02b2c3d479");
    assert_eq!((event.source(), event.status(), event.retry_count()), (Source::Database, Status::Failed, 2));
    assert_eq!(event.event_type().as_str(), "public.users.update");
    assert_eq!(event.error(), Some("handler failed after 3 attempts: <boom>"));
    assert_eq!(event.payload().as_str(), r#"{"id":7,"data":{"name":"A \u0026 B"}}"#);
    assert_eq!((event.user_id(), event.session_id(), event.instance_id()), (Some(42), Some("sess-1"), Some("web-1")));
    assert_eq!((event.schema(), event.entity(), event.operation()), (Some("public"), Some("users"), Some("update")));
    assert_eq!(event.created_at(), nanos(1_767_130_571_120_000_000));
    assert_eq!(event.processed_at(), Some(nanos(1_767_130_572_000_000_000)));
    assert_eq!(event.completed_at(), Some(nanos(1_767_130_573_000_000_001)));
    assert_eq!(Value::from(event.metadata().clone()), json!({"table_name": "users", "user_roles": ["admin"]}));
    assert_eq!(event.key(), None);
}

#[test]
fn an_event_is_written_with_the_fields_of_the_go_broker_in_its_order() {
    let event = Event::from_json(FROM_GO.as_bytes()).expect("a valid event");
    let expected = FROM_GO
        .replace(r"\u003cboom\u003e", "<boom>")
        .replace("2025-12-30T23:36:11.12+02:00", "2025-12-30T21:36:11.12Z");
    assert_eq!(text(&event), expected);
}

#[test]
fn unset_fields_are_written_as_the_go_broker_does() {
    let event = Event::builder(Source::System, "tick").id("1").created_at(UNIX_EPOCH).build().expect("valid");
    assert_eq!(
        text(&event),
        r#"{"id":"1","source":"system","type":"tick","status":"pending","retry_count":0,"payload":null,"user_id":0,"session_id":"","instance_id":"","schema":"","entity":"","operation":"","created_at":"1970-01-01T00:00:00Z","metadata":{}}"#
    );
    let keyed = Event::builder(Source::System, "tick").key("k").build().expect("valid");
    assert!(text(&keyed).ends_with(r#","metadata":{},"key":"k"}"#));
}

#[test]
fn only_id_source_and_type_are_required() {
    let event = Event::from_json(br#" { "type" : "a.b.c", "source":"internal","id":"1" } "#).expect("valid");
    let built = Event::builder(Source::Internal, "a.b.c").id("1").created_at(UNIX_EPOCH).build().expect("valid");
    assert_eq!(event, built);
    for field in ["id", "source", "type"] {
        let mut object = json!({"id": "1", "source": "system", "type": "a"});
        object[field] = Value::Null;
        assert_eq!(refused(object.to_string()), (field, Problem::Missing));
        object.as_object_mut().expect("an object").remove(field);
        assert_eq!(refused(object.to_string()), (field, Problem::Missing));
    }
}

#[test]
fn null_and_empty_fields_are_read_as_absent() {
    let plain = Event::from_json(with(r#""x":0"#).as_bytes()).expect("valid");
    let texts = ["status", "error", "session_id", "instance_id", "schema", "entity", "operation", "key"];
    let times = ["created_at", "processed_at", "completed_at"];
    for field in texts.iter().chain(&times) {
        for none in ["null", "\"\""] {
            let event = Event::from_json(with(&format!("\"{field}\":{none}")).as_bytes()).expect("valid");
            assert_eq!(event, plain, "{field} {none}");
        }
    }
    for field in ["retry_count", "user_id", "payload", "metadata"] {
        assert_eq!(Event::from_json(with(&format!("\"{field}\":null")).as_bytes()).expect("valid"), plain, "{field}");
    }
    for field in times {
        let json = with(&format!("\"{field}\":\"0001-01-01T00:00:00Z\""));
        assert_eq!(Event::from_json(json.as_bytes()).expect("valid"), plain, "{field}");
    }
}

#[test]
fn unknown_fields_are_ignored_at_any_place_and_depth() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let json = format!(r#"{{"new":{deep},"id":"1","other":{{"id":2}},"source":"system","type":"a"}}"#);
    assert_eq!(Event::from_json(json.as_bytes()).expect("valid").id().to_string(), "1");
}

#[test]
fn names_derived_from_the_type_stay_derived() {
    let derived = Event::from_json(with(r#""schema":"a","entity":"b","operation":"c""#).as_bytes()).expect("valid");
    assert_eq!(derived, Event::from_json(with(r#""schema":"""#).as_bytes()).expect("valid"));
    let other = Event::from_json(with(r#""schema":"z""#).as_bytes()).expect("valid");
    assert_eq!((other.schema(), other.entity()), (Some("z"), Some("b")));
    assert_ne!(other, derived);
}

#[test]
fn every_field_is_checked_like_in_the_builder() {
    let long = "x".repeat(256);
    for field in ["session_id", "instance_id", "schema", "entity", "operation", "key"] {
        let (at, problem) = refused(with(&format!("\"{field}\":\"{long}\"")));
        assert_eq!((at, problem), (field, Problem::TooLong { max: 255, actual: 256 }));
        let (at, problem) = refused(with(&format!("\"{field}\":\"\\u0007\"")));
        assert_eq!((at, problem), (field, Problem::Forbidden { character: '\u{7}', offset: 0 }));
        let (at, problem) = refused(with(&format!("\"{field}\":1")));
        assert_eq!((at, problem), (field, Problem::OutOfBounds("is not a text".to_owned())));
    }
    assert_eq!(refused(r#"{"id":"","source":"system","type":"a"}"#), ("id", Problem::Empty));
    assert_eq!(
        refused(r#"{"id":"1","source":"system","type":"a..b"}"#),
        ("type", Problem::EmptySegment { position: 2 })
    );
    for (field, value) in [
        ("source", "\"moon\""),
        ("status", "\"done\""),
        ("retry_count", "-1"),
        ("retry_count", "4294967296"),
        ("retry_count", "\"1\""),
        ("user_id", "1.5"),
        ("user_id", "9223372036854775808"),
        ("created_at", "\"yesterday\""),
        ("created_at", "\"2025-12-30\""),
        ("created_at", "\"1969-12-31T23:59:59.999999999Z\""),
        ("processed_at", "\"2554-07-21T23:34:33.709551616Z\""),
        ("completed_at", "\"9999-12-30T00:00:00Z\""),
    ] {
        let json = with("\"x\":0")
            .replace(r#""source":"system""#, if field == "source" { "\"x\":1" } else { r#""source":"system""# });
        let json = json.replace("\"x\":0", &format!("\"{field}\":{value}"));
        let (at, problem) = refused(&json);
        assert_eq!(at, field, "{json}");
        assert!(matches!(problem, Problem::OutOfBounds(_)), "{field}: {problem}");
    }
    let last = Event::from_json(with(r#""created_at":"2554-07-21T23:34:33.709551615Z""#).as_bytes()).expect("valid");
    assert_eq!(last.created_at(), nanos(u64::MAX));
}

#[test]
fn metadata_is_bounded_in_json_too() {
    let entries: Vec<_> = (0..65).map(|number| format!("\"k{number}\":1")).collect();
    let object = |count: usize| with(&format!("\"metadata\":{{{}}}", entries[..count].join(",")));
    assert_eq!(Event::from_json(object(64).as_bytes()).expect("valid").metadata().len(), 64);
    assert_eq!(refused(object(65)), ("metadata", Problem::TooMany { what: "entries", max: 64, actual: 65 }));

    let large = |bytes: usize| with(&format!(r#""metadata":{{"a":"{}"}}"#, "x".repeat(bytes - 8)));
    assert!(Event::from_json(large(65_536).as_bytes()).is_ok());
    assert_eq!(refused(large(65_537)), ("metadata", Problem::TooLong { max: 65_536, actual: 65_537 }));
    assert!(matches!(refused(with(r#""metadata":[1]"#)), ("metadata", Problem::NotJson(_))));
}

#[test]
fn deep_json_is_refused_without_a_stack_overflow() {
    let lists = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let payload = |depth| with(&format!("\"payload\":{}", lists(depth)));
    let metadata = |depth| with(&format!("\"metadata\":{{\"a\":{}}}", lists(depth)));
    assert!(Event::from_json(payload(64).as_bytes()).is_ok());
    assert!(Event::from_json(metadata(64).as_bytes()).is_ok());
    for depth in [65, 100_000] {
        assert_eq!(refused(payload(depth)), ("payload", Problem::TooDeep { max: 64 }));
        assert_eq!(refused(metadata(depth)), ("metadata", Problem::TooDeep { max: 64 }));
    }
    for field in ["id", "source", "status", "retry_count", "user_id", "created_at", "error"] {
        let json = with("\"x\":0")
            .replace(&format!("\"{field}\""), "\"y\"")
            .replace("\"x\":0", &format!("\"{field}\":{}", lists(100_000)));
        assert_eq!(refused(json).0, field);
    }
}

#[test]
fn json_other_than_an_object_is_refused() {
    for json in ["", "null", "1", "\"a\"", "[]", "{", "{}}", "{\"id\":}", "{\"id\":\"1\",\"id\":\"2\"}"] {
        let (field, problem) = refused(json);
        assert_eq!(field, "event", "{json}");
        assert!(matches!(problem, Problem::NotJson(_)));
    }
    assert_eq!(refused(b"{\"id\":\"\xff\"}").0, "event");
    let list = format!(r#"["1","system","a"{}]"#, ",null".repeat(15));
    assert_eq!(refused(list).0, "event");
}

#[test]
fn serde_writes_the_same_json() {
    let event = Event::from_json(FROM_GO.as_bytes()).expect("a valid event");
    assert_eq!(serde_json::to_vec(&event).expect("JSON"), event.to_json());
    assert_eq!(serde_json::to_string(&[&event]).expect("JSON"), format!("[{}]", text(&event)));
    let value: Value = serde_json::from_slice(&event.to_json()).expect("JSON");
    assert_eq!(serde_json::to_value(&event).expect("JSON"), value);
}

/// Any text of at most 255 bytes without control characters.
fn short_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,60}",
        prop::collection::vec(prop_oneof![any::<char>(), Just('"'), Just('\\'), Just('/'), Just('\u{2028}')], 0..60)
            .prop_map(|characters| characters.into_iter().filter(|c| !c.is_control()).collect::<String>()),
    ]
}

/// Any JSON value of a few levels, with numbers of every size.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |below| {
        prop_oneof![
            prop::collection::vec(below.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), below, 0..4)
                .prop_map(|fields| Value::from(serde_json::Map::from_iter(fields))),
        ]
    })
}

fn any_event() -> impl Strategy<Value = EventBuilder> {
    let texts = prop::array::uniform6(short_text());
    let metadata = prop::collection::btree_map("\\PC{1,20}", value(), 0..5);
    let source = prop::sample::select(vec![Source::Database, Source::Websocket, Source::Frontend, Source::System]);
    let rest = (any::<i64>(), any::<u64>(), value(), metadata);
    let event_type = "[a-zß\"\\\\]{1,4}(\\.[a-z]{1,4}){0,5}";
    (source, event_type, "\\PC{1,60}", texts, rest).prop_map(
        |(source, event_type, id, [session, instance, schema, entity, operation, key], rest)| {
            let (user_id, created, payload, metadata) = rest;
            let builder = Event::builder(source, event_type)
                .id(id)
                .session_id(session)
                .instance_id(instance)
                .schema(schema)
                .entity(entity)
                .operation(operation)
                .key(key)
                .user_id(user_id)
                .created_at(nanos(created))
                .payload(&payload);
            metadata.into_iter().fold(builder, |builder, (key, value)| builder.metadata(key, value))
        },
    )
}

proptest! {
    #[test]
    fn every_event_is_read_back_as_it_was_written(builder in any_event()) {
        let event = builder.build().expect("a valid event");
        let json = event.to_json();
        let read = Event::from_json(&json).expect("its own JSON");
        prop_assert_eq!(&read, &event);
        prop_assert_eq!(read.to_json(), json);
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..FROM_GO.len(), byte: u8) {
        let _ = Event::from_json(&bytes);
        let mut damaged = FROM_GO.as_bytes().to_vec();
        damaged[at] = byte;
        let _ = Event::from_json(&damaged);
        let _ = Event::from_json(&FROM_GO.as_bytes()[..at]);
    }
}
