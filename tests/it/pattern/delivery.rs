//! Routing: an event reaches exactly the subscriptions whose pattern matches its type, and a malformed pattern is
//! refused.

use std::collections::BTreeSet;

use eventbroker::error::{Invalid, Problem, SubscribeError};
use eventbroker::{Broker, Outcome, Pattern, SubscribeOptions};

use crate::support::event;

const TYPES: [&str; 14] = [
    "a",
    "b",
    "A",
    "a.b",
    "b.a",
    "a.b.c",
    "a.c.c",
    "public.users.create",
    "public.users.delete",
    "public.orders.create",
    "public.users",
    "other.users.create",
    "public.users.create.x",
    "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p",
];

/// Each pattern with the types of the list above that it matches.
const PATTERNS: [(&str, &[&str]); 17] = [
    ("*", &TYPES),
    ("**", &TYPES),
    ("a", &["a"]),
    ("A", &["A"]),
    ("a.b", &["a.b"]),
    ("a.b.c", &["a.b.c"]),
    ("a.*", &["a.b"]),
    ("*.*", &["a.b", "b.a", "public.users"]),
    ("*.b.*", &["a.b.c"]),
    ("a.*.c", &["a.b.c", "a.c.c"]),
    ("a.**", &["a.b", "a.b.c", "a.c.c", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p"]),
    ("public.users.create", &["public.users.create"]),
    ("public.*.create", &["public.users.create", "public.orders.create"]),
    ("*.users.create", &["public.users.create", "other.users.create"]),
    ("public.users.*", &["public.users.create", "public.users.delete"]),
    (
        "public.**",
        &[
            "public.users.create",
            "public.users.delete",
            "public.orders.create",
            "public.users",
            "public.users.create.x",
        ],
    ),
    ("no.such.type", &[]),
];

/// The names of the subscriptions that an event of a type reaches.
fn reached(broker: &Broker, event_type: &str) -> BTreeSet<String> {
    let report = broker.publish_sync(event(event_type)).expect("accepted");
    assert!(report.is_success());
    let names: BTreeSet<String> = report.settled.iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names.len(), report.settled.len(), "each subscription receives the event once");
    names
}

fn expected(patterns: &[(&str, &[&str])], event_type: &str) -> BTreeSet<String> {
    patterns.iter().filter(|it| it.1.contains(&event_type)).map(|it| it.0.to_owned()).collect()
}

#[test]
fn each_event_reaches_the_subscriptions_that_match() {
    let broker = Broker::builder().start().expect("a running broker");
    for (pattern, _) in PATTERNS {
        broker.subscribe_with(SubscribeOptions::new(pattern).name(pattern), |_| ()).expect("a subscription");
    }
    // From the second publish on, the route comes from the cache.
    for _ in 0..3 {
        for event_type in TYPES {
            assert_eq!(reached(&broker, event_type), expected(&PATTERNS, event_type), "{event_type}");
        }
    }
}

#[test]
fn cached_routes_follow_new_and_removed_subscriptions() {
    let broker = Broker::builder().start().expect("a running broker");
    let mut ids = Vec::new();
    for count in 0..=PATTERNS.len() {
        for event_type in TYPES {
            assert_eq!(reached(&broker, event_type), expected(&PATTERNS[..count], event_type), "{event_type}");
        }
        if let Some((pattern, _)) = PATTERNS.get(count) {
            let options = SubscribeOptions::new(pattern).name(*pattern);
            ids.push(broker.subscribe_with(options, |_| ()).expect("a subscription"));
        }
    }
    for (removed, id) in ids.into_iter().enumerate() {
        broker.unsubscribe(id).expect("subscribed");
        for event_type in TYPES {
            assert_eq!(reached(&broker, event_type), expected(&PATTERNS[removed + 1..], event_type), "{event_type}");
        }
    }
}

#[test]
fn pattern_matches_and_delivery_agree() {
    let broker = Broker::builder().start().expect("a running broker");
    for (pattern, _) in PATTERNS {
        broker.subscribe_with(SubscribeOptions::new(pattern).name(pattern), |_| ()).expect("a subscription");
    }
    for event_type in TYPES {
        let defined: BTreeSet<String> = PATTERNS
            .iter()
            .filter(|it| Pattern::parse(it.0).expect("a valid pattern").matches(event_type))
            .map(|it| it.0.to_owned())
            .collect();
        assert_eq!(reached(&broker, event_type), defined, "{event_type}");
    }
}

#[test]
fn several_subscriptions_of_one_pattern_each_receive_the_event() {
    let broker = Broker::builder().start().expect("a running broker");
    for number in 0..20 {
        let options = SubscribeOptions::new("a.*").name(format!("{number:02}"));
        broker.subscribe_with(options, |_| Outcome::Skip).expect("a subscription");
    }
    assert_eq!(reached(&broker, "a.b").len(), 20);
    assert_eq!(reached(&broker, "b.a").len(), 0);
}

#[test]
fn a_malformed_pattern_is_refused_with_its_faulty_segment() {
    let broker = Broker::builder().start().expect("a running broker");
    let empty = |position| Problem::EmptySegment { position };
    let misplaced = |position| Problem::MisplacedWildcard { position };
    let too_many = Problem::TooMany { what: "segments", max: 16, actual: 17 };
    let table = [
        ("", Problem::Empty, "empty"),
        (".", empty(1), "segment 1"),
        ("a..c", empty(2), "segment 2"),
        ("a.b.", empty(3), "segment 3"),
        (".a", empty(1), "segment 1"),
        ("a.b*", misplaced(2), "segment 2"),
        ("us*.x", misplaced(1), "segment 1"),
        ("a.**.b", misplaced(2), "segment 2"),
        ("a.b.***", misplaced(3), "segment 3"),
        ("**.a", misplaced(1), "segment 1"),
        ("a b", Problem::Forbidden { character: ' ', offset: 1 }, "' '"),
        ("a.\n", Problem::Forbidden { character: '\n', offset: 2 }, "'\\n'"),
        ("a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a", too_many, "17 segments"),
        (&"x".repeat(256), Problem::TooLong { max: 255, actual: 256 }, "256 bytes"),
    ];
    for (pattern, problem, word) in table {
        let invalid = Invalid { field: "pattern", problem };
        let refusals = [
            broker.subscribe(pattern, |_| ()).expect_err(pattern),
            broker.subscribe_with(SubscribeOptions::new(pattern).name("name"), |_| ()).expect_err(pattern),
        ];
        for refused in refusals {
            assert_eq!(refused, SubscribeError::Invalid(invalid.clone()), "{pattern:?}");
            assert!(refused.to_string().contains(word), "{pattern:?}: {refused}");
        }
        assert_eq!(broker.stream(pattern).map(drop), Err(invalid.into()));
    }
    assert_eq!(broker.stats().subscriptions, []);
}
