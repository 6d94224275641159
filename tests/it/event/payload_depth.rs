//! The depth bound of payloads, compared with a plain recursive measure on JSON whose strings contain brackets and
//! quotes.

use eventbroker::Payload;
use proptest::prelude::*;
use serde_json::Value;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Strings of any length with every structural character, so that the structure after them starts at any offset.
fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("]".to_owned()),
        Just("}}".to_owned()),
        Just("[{".to_owned()),
        Just("\\\"".to_owned()),
        Just("\\\\".to_owned()),
        Just("\\u005b".to_owned()),
        Just("|\u{7f}ä".to_owned()),
        (0..70_usize).prop_map(|length| "x".repeat(length)),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

/// A value nested in `depth` lists and objects, with strings and shallow values beside it.
fn nested() -> impl Strategy<Value = String> {
    let level = (any::<bool>(), string(), any::<bool>());
    prop::collection::vec(level, 0..72).prop_flat_map(|levels| {
        string().prop_map(move |inmost| {
            levels.iter().fold(inmost, |inner, (list, beside, before)| match (list, before) {
                (true, true) => format!("[{beside},[[]],{inner}]"),
                (true, false) => format!("[{inner},{{}},{beside}]"),
                (false, true) => format!("{{\"a\":{beside},{beside}:{{\"b\":[]}},\"c\":{inner}}}"),
                (false, false) => format!("{{\"a\":{inner},\"b\":{beside}}}"),
            })
        })
    })
}

proptest! {
    #[test]
    fn a_payload_is_refused_if_and_only_if_it_is_deeper_than_the_bound(json in nested()) {
        let value: Value = serde_json::from_str(&json).expect("JSON");
        prop_assert_eq!(Payload::from_json(&json).is_ok(), depth(&value) <= Payload::MAX_DEPTH);
    }
}
