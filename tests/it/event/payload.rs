//! Payloads: JSON that is checked once, kept byte for byte, and bounded in depth.

use std::collections::HashMap;

use eventbroker::error::Problem;
use eventbroker::{Event, Payload, Source};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn problem(json: impl AsRef<[u8]>) -> Problem {
    let invalid = Payload::from_json(json).expect_err("a refused payload");
    assert_eq!(invalid.field, "payload");
    invalid.problem
}

fn lists(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn every_form_of_null_is_the_default_payload() {
    let null = Payload::null();
    assert_eq!((null.as_str(), null.as_bytes(), null.len()), ("null", &b"null"[..], 4));
    for payload in [
        Payload::default(),
        Payload::from_json(" null\n").expect("JSON"),
        Payload::from_serialize(&()).expect("JSON"),
        Payload::from_serialize(&None::<u8>).expect("JSON"),
        Event::builder(Source::System, "a").build().expect("valid").payload().clone(),
    ] {
        assert!(payload.is_null());
        assert_eq!(payload, null);
    }
    assert!(!Payload::from_json("0").expect("JSON").is_null());
}

#[test]
fn raw_json_is_kept_byte_for_byte_without_surrounding_white_space() {
    let text = "{\"b\" : 1.50, \"a\":[ 1e400, \"\\u00e4ä\\ud800\" ],\n\"a\":0}";
    let payload = Payload::from_json(format!(" \r\n\t{text} \n")).expect("JSON");
    assert_eq!(payload.as_str(), text);
    assert_eq!(payload.as_bytes(), text.as_bytes());
    assert_eq!(payload.len(), text.len());
    assert_eq!(Payload::from_json(text.as_bytes()).expect("JSON"), payload);
    assert_eq!(Payload::from_json(Vec::from(text)).expect("JSON"), payload);
}

#[test]
fn text_other_than_json_is_refused() {
    for text in ["", " ", "{", "{\"a\":}", "[1,]", "nul", "01", "'a'", "1 2", "\"a\nb\"", "\"\\x\"", "\u{feff}1", "NaN"]
    {
        assert!(matches!(problem(text), Problem::NotJson(_)), "{text:?}");
    }
    assert!(matches!(problem(b"\"\xff\""), Problem::NotJson(_)));
    assert!(matches!(problem(b"\"\xed\xa0\x80\""), Problem::NotJson(_)));
}

#[test]
fn raw_json_may_be_nested_64_levels() {
    assert_eq!(Payload::MAX_DEPTH, 64);
    assert!(Payload::from_json(lists(64)).is_ok());
    assert_eq!(problem(lists(65)), Problem::TooDeep { max: 64 });
    assert_eq!(problem(lists(100_000)), Problem::TooDeep { max: 64 });
    let objects = |depth: usize| "{\"[\\\"\":".repeat(depth - 1) + "{}" + &"}".repeat(depth - 1);
    assert!(Payload::from_json(objects(64)).is_ok());
    assert_eq!(problem(objects(65)), Problem::TooDeep { max: 64 });
}

#[test]
fn many_brackets_are_not_deep() {
    let wide = format!("[{}[]]", "[{}],".repeat(1_000));
    assert_eq!(Payload::from_json(&wide).expect("JSON").as_str(), wide);
    let in_text = format!("{{\"a\\\\\":\"\\\"{}\\\\\"}}", "[{".repeat(1_000));
    assert_eq!(Payload::from_json(&in_text).expect("JSON").as_str(), in_text);
}

#[test]
fn values_are_written_compactly() {
    let payload = Payload::from_serialize(&json!({"a": [1, "x\n"], "b": null})).expect("JSON");
    assert_eq!(payload.as_str(), r#"{"a":[1,"x\n"],"b":null}"#);
    assert_eq!(Payload::from_serialize("text").expect("JSON").as_str(), "\"text\"");
}

/// A list of lists, written recursively.
struct Lists(usize);

impl Serialize for Lists {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 1 { serializer.collect_seq([(); 0]) } else { serializer.collect_seq([Self(self.0 - 1)]) }
    }
}

/// An object of objects, written recursively.
struct Objects(usize);

impl Serialize for Objects {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let below = (self.0 > 1).then(|| ("a", Self(self.0 - 1)));
        serializer.collect_map(below)
    }
}

#[test]
fn values_may_be_nested_64_levels_and_deeper_ones_overflow_no_stack() {
    let deep = |result: Result<Payload, _>| result.map_err(|invalid: eventbroker::error::Invalid| invalid.problem);
    assert_eq!(deep(Payload::from_serialize(&Lists(64))).expect("JSON").as_str(), lists(64));
    assert!(deep(Payload::from_serialize(&Objects(64))).is_ok());
    for depth in [65, 10_000_000] {
        assert_eq!(deep(Payload::from_serialize(&Lists(depth))), Err(Problem::TooDeep { max: 64 }));
        assert_eq!(deep(Payload::from_serialize(&Objects(depth))), Err(Problem::TooDeep { max: 64 }));
    }
    // Siblings do not add to the depth.
    let wide = vec![(vec![0], HashMap::from([("a", 1)])); 100];
    assert!(Payload::from_serialize(&wide).is_ok());
}

#[test]
fn levels_of_raw_json_inside_a_value_count() {
    let raw = RawValue::from_string(lists(63)).expect("JSON");
    assert!(Payload::from_serialize(&[&raw]).is_ok());
    let refused = Payload::from_serialize(&[[&raw]]).expect_err("65 levels");
    assert_eq!(refused.problem, Problem::TooDeep { max: 64 });
}

#[test]
fn a_value_without_a_json_form_is_refused() {
    let refused = Payload::from_serialize(&HashMap::from([(vec![1], 2)])).expect_err("a list as a key");
    assert_eq!(refused.field, "payload");
    assert!(matches!(refused.problem, Problem::NotJson(message) if message.contains("key")));
}

#[test]
fn a_payload_deserialises_into_owned_and_borrowed_types() {
    let event = Event::builder(Source::System, "a").payload_json(r#"{"name":"Ada"}"#).build().expect("valid");
    let borrowed: HashMap<&str, &str> = event.payload_as().expect("a map");
    assert_eq!(borrowed["name"], "Ada");
    assert_eq!(event.payload().parse::<Value>().expect("any value"), json!({"name": "Ada"}));
    let error = event.payload_as::<Vec<u8>>().expect_err("not a list");
    assert!(error.to_string().starts_with("the payload does not decode: invalid type: map"), "{error}");
}

#[test]
fn the_builder_takes_values_raw_json_and_payloads() {
    let expected = Payload::from_json("[1,2]").expect("JSON");
    let builder = || Event::builder(Source::System, "a");
    for event in [builder().payload(&[1, 2]), builder().payload_json("[1,2]"), builder().payload_raw(expected.clone())]
    {
        assert_eq!(event.build().expect("valid").payload(), &expected);
    }
    let refused = builder().payload_json("[1,").build().expect_err("not JSON");
    assert_eq!(refused.invalid().field, "payload");
    assert!(refused.into_builder().build().expect("valid without it").payload().is_null());
}
