//! Validation in the builder: each field at its bound and one beyond it, and the builder that a refusal returns.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventbroker::error::{Invalid, Problem};
use eventbroker::{Event, EventBuilder, EventType, Source, Status, event_type};
use serde_json::{Value, json};

fn builder() -> EventBuilder {
    Event::builder(Source::System, "public.users.create")
}

fn invalid(builder: EventBuilder) -> Invalid {
    builder.build().expect_err("a refused event").invalid().clone()
}

fn type_problem(text: &str) -> Problem {
    let refused = invalid(Event::builder(Source::System, text));
    assert_eq!(refused.field, "type");
    refused.problem
}

#[test]
fn a_new_event_is_pending_and_has_only_the_given_fields() {
    let before = SystemTime::now();
    let event = Event::builder(Source::Frontend, "click").build().expect("valid");
    assert_eq!((event.source(), event.status()), (Source::Frontend, Status::Pending));
    assert_eq!(event.event_type().as_str(), "click");
    assert_eq!((event.user_id(), event.retry_count()), (None, 0));
    assert_eq!((event.session_id(), event.instance_id(), event.key(), event.error()), (None, None, None, None));
    assert_eq!((event.schema(), event.entity(), event.operation()), (None, None, None));
    assert_eq!((event.processed_at(), event.completed_at()), (None, None));
    assert!(event.metadata().is_empty());
    assert!((before..=SystemTime::now()).contains(&event.created_at()));
}

#[test]
fn every_set_field_can_be_read() {
    let time = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
    let event = builder()
        .id("id-1")
        .user_id(-3)
        .session_id("s")
        .instance_id("i")
        .schema("other")
        .entity("things")
        .operation("do")
        .key("k")
        .metadata("a", 1)
        .metadata("b", "two")
        .metadata("a", json!([3]))
        .created_at(time)
        .build()
        .expect("valid");
    assert_eq!(event.id().to_string(), "id-1");
    assert_eq!(event.user_id(), Some(-3));
    assert_eq!((event.session_id(), event.instance_id(), event.key()), (Some("s"), Some("i"), Some("k")));
    assert_eq!((event.schema(), event.entity(), event.operation()), (Some("other"), Some("things"), Some("do")));
    assert_eq!(Value::from(event.metadata().clone()), json!({"a": [3], "b": "two"}));
    assert_eq!(event.created_at(), time);
}

#[test]
fn schema_entity_and_operation_come_from_a_type_of_three_segments() {
    let names = |event: &Event| [event.schema(), event.entity(), event.operation()].map(|name| name.map(str::to_owned));
    let of = |text: &str| names(&Event::builder(Source::System, text).build().expect("valid"));
    assert_eq!(of("a.b.c"), ["a", "b", "c"].map(|name| Some(name.to_owned())));
    assert_eq!(of("a.b"), [None, None, None]);
    assert_eq!(of("a.b.c.d"), [None, None, None]);
    let event = builder().entity("people").build().expect("valid");
    assert_eq!(names(&event), ["public", "people", "create"].map(|name| Some(name.to_owned())));
    assert_eq!(event_type("a", "b", "c"), "a.b.c");
}

#[test]
fn setting_a_name_to_its_derived_value_changes_nothing() {
    let plain = builder().id("1").created_at(UNIX_EPOCH);
    let given = builder().id("1").created_at(UNIX_EPOCH).schema("public").entity("users").operation("create");
    assert_eq!(plain.build().expect("valid"), given.build().expect("valid"));
}

#[test]
fn a_type_is_accepted_in_every_usual_form() {
    let parsed = EventType::parse("a.b").expect("valid");
    let text = "a.b".to_owned();
    for builder in [
        Event::builder(Source::System, "a.b"),
        Event::builder(Source::System, text.as_str()),
        Event::builder(Source::System, &text),
        Event::builder(Source::System, &parsed),
        Event::builder(Source::System, parsed.clone()),
        Event::builder(Source::System, text),
    ] {
        assert_eq!(builder.build().expect("valid").event_type(), &parsed);
    }
}

#[test]
fn a_type_has_1_to_255_bytes() {
    assert!(EventType::parse(&"x".repeat(255)).is_ok());
    assert_eq!(type_problem(&"x".repeat(256)), Problem::TooLong { max: 255, actual: 256 });
    assert_eq!(type_problem(""), Problem::Empty);
}

#[test]
fn a_type_has_at_most_16_segments_and_none_is_empty() {
    let sixteen = ["x"; 16].join(".");
    assert_eq!(EventType::parse(&sixteen).expect("valid").segments().count(), 16);
    assert_eq!(type_problem(&["x"; 17].join(".")), Problem::TooMany { what: "segments", max: 16, actual: 17 });
    for (text, position) in [("a..b", 2), (".a", 1), ("a.", 2), (".", 1)] {
        assert_eq!(type_problem(text), Problem::EmptySegment { position }, "{text}");
    }
}

#[test]
fn a_type_has_no_wildcard_white_space_or_control_character() {
    for (text, character, offset) in [
        ("a.*", '*', 2),
        ("a.b*", '*', 3),
        ("a b", ' ', 1),
        ("a.b\t", '\t', 3),
        ("é\u{a0}", '\u{a0}', 2),
        ("a\u{3000}b", '\u{3000}', 1),
        ("a\u{0}", '\0', 1),
        ("a\u{9f}", '\u{9f}', 1),
    ] {
        assert_eq!(type_problem(text), Problem::Forbidden { character, offset }, "{text:?}");
    }
    for text in ["a.>", "Größe.日本", "a-b_c:d/e", "a.\"b\""] {
        assert_eq!(EventType::parse(text).expect("valid").as_str(), text);
    }
}

#[test]
fn interned_types_stay_right_with_many_distinct_types() {
    let texts: Vec<_> = (0..1_000).map(|number| format!("many.types.{number}")).collect();
    for _ in 0..3 {
        for text in &texts {
            let parsed = EventType::parse(text).expect("valid");
            assert_eq!(parsed.as_str(), text);
            assert_eq!(parsed, EventType::parse(text).expect("valid"));
            assert!(EventType::parse(&format!("{text}.*")).is_err());
        }
    }
    let from_elsewhere =
        std::thread::spawn(|| EventType::parse("many.types.1").expect("valid")).join().expect("no panic");
    assert_eq!(from_elsewhere, EventType::parse("many.types.1").expect("valid"));
    assert!(from_elsewhere < EventType::parse("many.types.2").expect("valid"));
}

#[test]
fn optional_texts_have_at_most_255_bytes_without_control_characters() {
    type Set = fn(EventBuilder, &str) -> EventBuilder;
    let fields: [(&str, Set); 6] = [
        ("session_id", |builder, text| builder.session_id(text)),
        ("instance_id", |builder, text| builder.instance_id(text)),
        ("schema", |builder, text| builder.schema(text)),
        ("entity", |builder, text| builder.entity(text)),
        ("operation", |builder, text| builder.operation(text)),
        ("key", |builder, text| builder.key(text)),
    ];
    let plain = builder().id("1").created_at(UNIX_EPOCH).build().expect("valid");
    for (field, set) in fields {
        assert!(set(builder(), &"x".repeat(255)).build().is_ok());
        let too_long = Problem::TooLong { max: 255, actual: 256 };
        assert_eq!(invalid(set(builder(), &"x".repeat(256))), Invalid { field, problem: too_long });
        let forbidden = Problem::Forbidden { character: '\u{1b}', offset: 1 };
        assert_eq!(invalid(set(builder(), "a\u{1b}")), Invalid { field, problem: forbidden });
        // An empty text unsets the field, also after another text.
        let emptied = set(set(builder(), "x"), "").id("1").created_at(UNIX_EPOCH).build().expect("valid");
        assert_eq!(emptied, plain, "{field}");
    }
}

#[test]
fn an_id_is_checked() {
    assert!(builder().id("x".repeat(255)).build().is_ok());
    let too_long = Problem::TooLong { max: 255, actual: 256 };
    assert_eq!(invalid(builder().id("x".repeat(256))), Invalid { field: "id", problem: too_long });
    assert_eq!(invalid(builder().id("")), Invalid { field: "id", problem: Problem::Empty });
}

#[test]
fn a_time_is_from_1970_to_2554() {
    let at = |time| builder().created_at(time).build().map(|event| event.created_at());
    let last = UNIX_EPOCH + Duration::from_nanos(u64::MAX);
    assert_eq!(at(UNIX_EPOCH).expect("valid"), UNIX_EPOCH);
    assert_eq!(at(last).expect("valid"), last);
    for time in [UNIX_EPOCH - Duration::from_nanos(1), last + Duration::from_nanos(1)] {
        let refused = at(time).expect_err("out of range");
        assert_eq!(refused.invalid().field, "created_at");
        assert!(matches!(refused.invalid().problem, Problem::OutOfBounds(_)));
    }
}

#[test]
fn metadata_has_at_most_64_entries() {
    let entries =
        |count: u32| (0..count).fold(builder(), |builder, number| builder.metadata(format!("k{number}"), number));
    assert_eq!(entries(64).build().expect("valid").metadata().len(), Event::MAX_METADATA_ENTRIES);
    assert!(entries(64).metadata("k0", "again").build().is_ok());
    let too_many = Problem::TooMany { what: "entries", max: 64, actual: 65 };
    assert_eq!(invalid(entries(65)), Invalid { field: "metadata", problem: too_many });
}

#[test]
fn metadata_names_have_1_to_255_bytes() {
    assert!(builder().metadata("x".repeat(255), 1).build().is_ok());
    for name in ["x".repeat(256), String::new()] {
        let refused = invalid(builder().metadata(name, 1));
        assert_eq!(refused.field, "metadata");
        assert!(matches!(refused.problem, Problem::OutOfBounds(_)));
    }
}

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!([]), |below, level| if level % 2 == 0 { json!([below]) } else { json!({ "a": below }) })
}

#[test]
fn metadata_values_may_be_nested_64_levels_and_deeper_ones_overflow_no_stack() {
    let too_deep = Invalid { field: "metadata", problem: Problem::TooDeep { max: 64 } };
    assert!(builder().metadata("a", nested(64)).build().is_ok());
    assert_eq!(invalid(builder().metadata("a", nested(65))), too_deep);
    // Built from the inside out, since `json!` would copy the value at each level.
    let deepest = (1..100_000).fold(json!([]), |below, _| Value::Array(vec![below]));
    assert_eq!(invalid(builder().metadata("a", deepest)), too_deep);
    let deepest = (1..100_000).fold(json!([]), |below, _| Value::Array(vec![below]));
    assert!(builder().metadata("", deepest).build().is_err());
}

#[test]
fn metadata_is_at_most_64_kib_of_json() {
    // {"a":"…","b":"…"} has 15 bytes beside the texts.
    let with = |bytes: usize| builder().metadata("a", "\n".repeat(100)).metadata("b", "x".repeat(bytes - 200 - 15));
    let event = with(64 * 1024).build().expect("valid");
    assert_eq!(serde_json::to_vec(event.metadata()).expect("JSON").len(), Event::MAX_METADATA_BYTES);
    let too_long = Problem::TooLong { max: 64 * 1024, actual: 64 * 1024 + 1 };
    assert_eq!(invalid(with(64 * 1024 + 1)), Invalid { field: "metadata", problem: too_long });
    // A replaced value no longer counts.
    let replaced = with(64 * 1024).metadata("b", "x").metadata("c", "x".repeat(60 * 1024)).build();
    assert_eq!(replaced.expect("valid").metadata().len(), 3);
}

#[test]
fn the_first_error_is_reported_and_the_returned_builder_keeps_the_valid_fields() {
    let refused = builder().id("1").key("bad\n").user_id(7).session_id("x".repeat(300)).metadata("a", 1).build();
    let refused = refused.expect_err("two faults");
    assert_eq!(refused.invalid().field, "key");
    assert_eq!(refused.to_string(), "invalid event: key: holds '\\n' at byte 3, which is not allowed");

    let refused = refused.into_builder().key("good").build().expect_err("one more fault");
    assert_eq!(refused.invalid().field, "session_id");

    let event = refused.into_builder().build().expect("valid without it");
    assert_eq!((event.id().to_string().as_str(), event.key(), event.user_id()), ("1", Some("good"), Some(7)));
    assert_eq!((event.session_id(), event.metadata().len()), (None, 1));
}

#[test]
fn setting_a_field_again_clears_its_error() {
    let event = builder().id("").payload_json("{").key("\n").id("2").payload(&1).key("k").build().expect("valid");
    assert_eq!((event.id().to_string().as_str(), event.payload().as_str(), event.key()), ("2", "1", Some("k")));
    assert!(builder().key("good").key("\n").build().is_err());
}

#[test]
fn a_refused_type_must_be_set_again() {
    let refused = Event::builder(Source::System, "a..b").user_id(1).build().expect_err("an empty segment");
    let refused = refused.into_builder().build().expect_err("no type");
    assert_eq!(refused.invalid(), &Invalid { field: "type", problem: Problem::Missing });
    let event = refused.into_builder().event_type("a.b").build().expect("valid");
    assert_eq!((event.event_type().as_str(), event.user_id()), ("a.b", Some(1)));
}

#[test]
fn refused_metadata_leaves_the_other_entries() {
    let refused = builder().metadata("a", 1).metadata("", 2).metadata("b", 3).build().expect_err("no name");
    assert_eq!(refused.invalid().field, "metadata");
    let event = refused.into_builder().build().expect("valid without it");
    assert_eq!(Value::from(event.metadata().clone()), json!({"a": 1, "b": 3}));
}

#[test]
fn sources_and_statuses_have_their_names_in_json() {
    let sources = ["database", "websocket", "frontend", "system", "internal"];
    let statuses = ["pending", "processing", "completed", "failed"];
    for name in sources {
        assert_eq!(name.parse::<Source>().expect("a source").to_string(), name);
    }
    for name in statuses {
        assert_eq!(name.parse::<Status>().expect("a status").to_string(), name);
    }
    for name in ["", "Database", "database ", "other"] {
        assert_eq!(name.parse::<Source>().expect_err("no source").field, "source");
        assert_eq!(name.parse::<Status>().expect_err("no status").field, "status");
    }
}
