//! Event ids: generated ones ascend and are unique, given ones keep their exact text.

use std::collections::{BTreeSet, HashSet};

use eventbroker::error::Problem;
use eventbroker::{Event, EventId, Source};
use proptest::prelude::*;

fn generated() -> EventId {
    Event::builder(Source::System, "a.b.c").build().expect("a valid event").id().clone()
}

#[test]
fn generated_ids_are_uuids_of_version_7_with_the_time_of_the_event() {
    let event = Event::builder(Source::System, "a.b.c").build().expect("a valid event");
    let text = event.id().to_string();
    let uuid = uuid::Uuid::parse_str(&text).expect("a UUID");
    assert_eq!(uuid.get_version_num(), 7);
    assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
    assert_eq!(uuid.hyphenated().to_string(), text);
    let millis = uuid.as_u128() >> 80;
    let created = event.created_at().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    assert!(millis - created <= 1, "{millis} and {created}");
}

#[test]
fn ids_of_one_thread_ascend() {
    let mut last = generated();
    for _ in 0..1_000 {
        let next = generated();
        assert!(last < next, "{last} < {next}");
        assert!(last.to_string() < next.to_string());
        last = next;
    }
}

#[test]
fn ids_of_four_threads_are_unique_and_ascend_in_each() {
    const EACH: usize = 50_000;
    let threads: Vec<_> =
        (0..4).map(|_| std::thread::spawn(|| (0..EACH).map(|_| generated()).collect::<Vec<_>>())).collect();
    let mut all = HashSet::new();
    for thread in threads {
        let ids = thread.join().expect("no panic");
        assert!(ids.is_sorted_by(|left, right| left < right));
        all.extend(ids);
    }
    assert_eq!(all.len(), 4 * EACH);
}

#[test]
fn a_given_id_keeps_its_exact_text() {
    for text in [
        "0190b2c8-7b1e-7cc3-98c4-dc0c0c07398f",
        "0190B2C8-7B1E-7CC3-98C4-DC0C0C07398F",
        "0190b2c8-7b1e-7cc3-98c4-dc0c0c07398F",
        "0190b2c87b1e7cc398c4dc0c0c07398f",
        "{0190b2c8-7b1e-7cc3-98c4-dc0c0c07398f}",
        "urn:uuid:0190b2c8-7b1e-7cc3-98c4-dc0c0c07398f",
        "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "00000000-0000-0000-0000-000000000000",
        "0190b2c8-7b1e-7cc3-98c4-dc0c0c07398g",
        "0190b2c8_7b1e_7cc3_98c4_dc0c0c07398f",
        "order 42",
        "Bestellung-ä-日本",
        " ",
    ] {
        assert_eq!(EventId::parse(text).expect("a valid id").to_string(), text);
    }
}

#[test]
fn an_id_has_1_to_255_bytes_without_control_characters() {
    let problem = |text: &str| EventId::parse(text).map_err(|invalid| (invalid.field, invalid.problem));
    assert!(problem(&"x".repeat(255)).is_ok());
    assert_eq!(problem(&"x".repeat(256)), Err(("id", Problem::TooLong { max: 255, actual: 256 })));
    assert_eq!(problem(&"é".repeat(128)), Err(("id", Problem::TooLong { max: 255, actual: 256 })));
    assert_eq!(problem(""), Err(("id", Problem::Empty)));
    assert_eq!(problem("a\nb"), Err(("id", Problem::Forbidden { character: '\n', offset: 1 })));
    assert_eq!(problem("é\u{85}"), Err(("id", Problem::Forbidden { character: '\u{85}', offset: 2 })));
    assert_eq!(problem("a\u{7f}"), Err(("id", Problem::Forbidden { character: '\u{7f}', offset: 1 })));
}

#[test]
fn every_form_of_parsing_gives_the_same_id() {
    let id = EventId::parse("a-1").expect("a valid id");
    assert_eq!("a-1".parse(), Ok(id.clone()));
    assert_eq!(EventId::try_from("a-1"), Ok(id.clone()));
    assert_eq!(EventId::try_from("a-1".to_owned()), Ok(id.clone()));
    let event = Event::builder(Source::System, "a").id(id.clone()).build().expect("a valid event");
    assert_eq!(event.id(), &id);
    assert_eq!(format!("{id:>5}|{id:?}"), "  a-1|EventId(\"a-1\")");
}

/// Texts, some of them UUIDs in the hyphenated form.
fn any_id() -> impl Strategy<Value = EventId> {
    prop_oneof![
        any::<u128>().prop_map(|bits| uuid::Uuid::from_u128(bits).to_string()),
        any::<u128>().prop_map(|bits| uuid::Uuid::from_u128(bits).to_string().to_uppercase()),
        "[0-9a-f-]{1,40}",
        "[0-9a-f]{8}-[0-9a-f]{4}~",
    ]
    .prop_map(|text| EventId::parse(&text).expect("a valid id"))
}

proptest! {
    #[test]
    fn ids_are_ordered_like_their_texts(left in any_id(), right in any_id()) {
        prop_assert_eq!(left.cmp(&right), left.to_string().cmp(&right.to_string()));
        prop_assert_eq!(left == right, left.to_string() == right.to_string());
    }
}

#[test]
fn a_sorted_set_of_all_kinds_is_sorted_by_text() {
    let texts = [
        "",
        "0",
        "0190b2c8-7b1e-7cc3-98c4-dc0c0c07398f",
        "0190b2c8-7b1e-7cc3-98c4-dc0c0c07398f!",
        "0190b2c8-7b1e-8",
        "g",
    ];
    let ids: BTreeSet<_> = texts[1..].iter().rev().map(|text| EventId::parse(text).expect("a valid id")).collect();
    assert_eq!(ids.iter().map(ToString::to_string).collect::<Vec<_>>(), texts[1..]);
}
