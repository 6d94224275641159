//! Patterns: the types that a pattern matches, and the texts that are refused as patterns.

use std::collections::HashSet;

use eventbroker::Pattern;
use eventbroker::error::{Invalid, Problem};
use proptest::prelude::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a valid pattern")
}

fn refusal(text: &str) -> Problem {
    let error = Pattern::parse(text).expect_err(text);
    assert_eq!(error.field, "pattern", "{text}");
    error.problem
}

#[test]
fn a_pattern_matches_by_each_of_its_rules() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str], &[&str])] = &[
        // A literal matches the whole type, case-sensitively.
        ("a", &["a"], &["A", "b", "a.a", "aa"]),
        ("public.users.create", &["public.users.create"],
            &["public.users", "public.users.create.x", "public.users.Create", "public.users.created", "publicXusersXcreate"]),
        ("größe.überall", &["größe.überall"], &["größe.Überall", "grosse.überall"]),
        // The wildcards of other systems are literals.
        ("a.?.[b]", &["a.?.[b]"], &["a.x.b", "a.x.[b]"]),
        ("a.>", &["a.>"], &["a.b"]),
        // `*` matches exactly one segment, at any place.
        ("*.users.create", &["public.users.create", "x.users.create"],
            &["users.create", "a.b.users.create", "public.users.delete"]),
        ("public.*.create", &["public.users.create"], &["public.create", "public.a.b.create", "other.users.create"]),
        ("public.users.*", &["public.users.create"], &["public.users", "public.users.a.b"]),
        ("*.*", &["a.b"], &["a", "a.b.c"]),
        ("*.*.*", &["a.b.c"], &["a.b", "a.b.c.d"]),
        ("*.b.*", &["a.b.c", "b.b.b"], &["a.c.b"]),
        // `*` alone matches every event.
        ("*", &["a", "a.b", "a.b.c.d.e.f"], &[]),
        // `**` at the end matches one or more segments.
        ("a.**", &["a.b", "a.b.c", "a.b.c.d"], &["a", "b", "b.a", "aa.b"]),
        ("a.b.**", &["a.b.c", "a.b.c.d"], &["a.b", "a.c.d"]),
        ("a.*.**", &["a.b.c", "a.b.c.d"], &["a", "a.b"]),
        ("*.**", &["a.b", "a.b.c"], &["a"]),
        ("**", &["a", "a.b", "a.b.c.d.e.f"], &[]),
    ];
    for (text, hits, misses) in table {
        let pattern = pattern(text);
        for hit in *hits {
            assert!(pattern.matches(hit), "{text} must match {hit}");
        }
        for miss in *misses {
            assert!(!pattern.matches(miss), "{text} must not match {miss}");
        }
    }
}

#[test]
fn malformed_patterns_are_refused() {
    let segments = |count: usize| vec!["a"; count].join(".");
    let table = [
        ("".to_owned(), Problem::Empty),
        ("a".repeat(256), Problem::TooLong { max: 255, actual: 256 }),
        (segments(17), Problem::TooMany { what: "segments", max: 16, actual: 17 }),
        (".".to_owned(), Problem::EmptySegment { position: 1 }),
        (".a".to_owned(), Problem::EmptySegment { position: 1 }),
        ("a.".to_owned(), Problem::EmptySegment { position: 2 }),
        ("a..b".to_owned(), Problem::EmptySegment { position: 2 }),
        ("a.*.".to_owned(), Problem::EmptySegment { position: 3 }),
        ("**.a".to_owned(), Problem::MisplacedWildcard { position: 1 }),
        ("a.**.b".to_owned(), Problem::MisplacedWildcard { position: 2 }),
        ("**.**".to_owned(), Problem::MisplacedWildcard { position: 1 }),
        ("a*".to_owned(), Problem::MisplacedWildcard { position: 1 }),
        ("x.*a".to_owned(), Problem::MisplacedWildcard { position: 2 }),
        ("x.a*b.c".to_owned(), Problem::MisplacedWildcard { position: 2 }),
        ("***".to_owned(), Problem::MisplacedWildcard { position: 1 }),
        ("x.***".to_owned(), Problem::MisplacedWildcard { position: 2 }),
        ("x.**a".to_owned(), Problem::MisplacedWildcard { position: 2 }),
        (" ".to_owned(), Problem::Forbidden { character: ' ', offset: 0 }),
        ("a b".to_owned(), Problem::Forbidden { character: ' ', offset: 1 }),
        ("a.b\n".to_owned(), Problem::Forbidden { character: '\n', offset: 3 }),
        ("a\t".to_owned(), Problem::Forbidden { character: '\t', offset: 1 }),
        ("a\0".to_owned(), Problem::Forbidden { character: '\0', offset: 1 }),
        ("ä\u{a0}".to_owned(), Problem::Forbidden { character: '\u{a0}', offset: 2 }),
        ("a\u{85}".to_owned(), Problem::Forbidden { character: '\u{85}', offset: 1 }),
        ("a\u{7f}".to_owned(), Problem::Forbidden { character: '\u{7f}', offset: 1 }),
    ];
    for (text, problem) in table {
        assert_eq!(refusal(&text), problem, "{text:?}");
    }
}

#[test]
fn a_pattern_at_its_bounds_is_allowed() {
    assert_eq!(Pattern::MAX_BYTES, 255);
    assert_eq!(Pattern::MAX_SEGMENTS, 16);
    let longest = "a".repeat(255);
    assert!(pattern(&longest).matches(&longest));
    let deepest = vec!["*"; 16].join(".");
    assert!(pattern(&deepest).matches(&vec!["a"; 16].join(".")));
    assert!(pattern(&format!("{}.**", vec!["a"; 15].join("."))).matches(&vec!["a"; 16].join(".")));
}

#[test]
fn a_pattern_compares_prints_and_parses() -> Result<(), Invalid> {
    let first: Pattern = "a.*".parse()?;
    let second = Pattern::try_from("a.*")?;
    let third = Pattern::try_from("a.**".to_owned())?;
    assert_eq!(first, second);
    assert_ne!(first, third);
    assert_eq!(HashSet::from([first.clone(), second, third]).len(), 2);
    assert_eq!(first.as_str(), "a.*");
    assert_eq!(first.to_string(), "a.*");
    assert_eq!(format!("[{first:>5}]"), "[  a.*]");
    assert_eq!(format!("{first:?}"), "Pattern(\"a.*\")");
    assert!("a..b".parse::<Pattern>().is_err());
    assert!(Pattern::try_from("a..b").is_err());
    assert!(Pattern::try_from("a..b".to_owned()).is_err());
    Ok(())
}

#[test]
fn only_a_lone_wildcard_matches_every_type() {
    for (text, all) in [("*", true), ("**", true), ("*.*", false), ("*.**", false), ("a", false), ("a.**", false)] {
        assert_eq!(pattern(text).is_match_all(), all, "{text}");
    }
}

#[test]
fn a_refusal_names_the_field_and_the_bound() {
    let error = Pattern::parse(&"a".repeat(300)).expect_err("too long");
    assert_eq!(error.to_string(), "pattern: is 300 bytes long, at most 255 are allowed");
}

fn segment() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("ab")]
}

proptest! {
    /// A type matches itself, and every pattern that replaces some of its segments by wildcards.
    #[test]
    fn widening_a_type_keeps_it_matched(
        segments in prop::collection::vec((segment(), any::<bool>()), 1..=16),
        cut in 0..16_usize,
    ) {
        let event_type = segments.iter().map(|(s, _)| *s).collect::<Vec<_>>().join(".");
        prop_assert!(pattern(&event_type).matches(&event_type));

        let mut wide: Vec<_> = segments.iter().map(|(s, widen)| if *widen { "*" } else { *s }).collect();
        prop_assert!(pattern(&wide.join(".")).matches(&event_type));

        wide.truncate(cut % wide.len());
        wide.push("**");
        prop_assert!(pattern(&wide.join(".")).matches(&event_type));
    }

    /// An accepted pattern keeps its text and obeys the bounds; no text makes the parser panic.
    #[test]
    fn any_text_is_refused_or_kept(text in "[a*. \\n\\x00é]{0,40}|\\PC{0,300}", event_type in "\\PC{0,40}") {
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert_eq!(pattern.as_str(), &text);
            prop_assert!(text.len() <= Pattern::MAX_BYTES);
            prop_assert!(text.split('.').count() <= Pattern::MAX_SEGMENTS);
            prop_assert!(!text.split('.').any(str::is_empty));
            let _ = pattern.matches(&event_type);
        }
    }
}
