//! What is stored of a pattern, so that the trigger that makes the deliveries needs nothing but the database itself. Each database has
//! a condition of its own on it.
//!
//! In a type with as many dots as the pattern, each wildcard of a glob stands for exactly one segment, because the dots between them
//! are used up by those of the pattern, and no segment is empty. With a final `**` that still holds if no `*` stands before it.
//! Only for the rest (`*.b.**`) the segments are compared one by one.

use eventbroker::Pattern;

/// What is stored of a pattern.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// It ends in `**`, or is the `*` that matches every type.
    pub(crate) final_rest: bool,
    /// Exactly so many dots has a type that matches; with a final rest at least so many.
    pub(crate) dots: usize,
    pub(crate) glob: String,
    /// The segments that are not wildcards, by index, as a JSON object; only where the glob does not suffice.
    pub(crate) literals: Option<String>,
}

impl Form {
    /// `any` stands for any text in the database's globs, and `literal` makes what stands for itself.
    pub(crate) fn of(pattern: &Pattern, any: &str, literal: fn(&str) -> String) -> Self {
        if pattern.is_match_all() {
            return Self { final_rest: true, dots: 0, glob: any.to_owned(), literals: None };
        }
        let segments: Vec<&str> = pattern.as_str().split('.').collect();
        let final_rest = segments.last() == Some(&"**");
        let glob_of = |segment: &&str| if matches!(*segment, "*" | "**") { any.to_owned() } else { literal(segment) };
        let glob: Vec<String> = segments.iter().map(glob_of).collect();
        let before_rest = &segments[..segments.len() - usize::from(final_rest)];
        let literals = (final_rest && before_rest.contains(&"*")).then(|| {
            let compared = |(index, segment): (usize, &&str)| {
                (*segment != "*").then(|| (index.to_string(), serde_json::Value::from(*segment)))
            };
            let literals: serde_json::Map<_, _> = before_rest.iter().enumerate().filter_map(compared).collect();
            serde_json::Value::from(literals).to_string()
        });
        Self { final_rest, dots: segments.len() - 1, glob: glob.join("."), literals }
    }
}

/// Why a subscription is refused that is known with another pattern.
pub(crate) fn other_pattern(name: &str, group: &str, known: &str, wanted: &str) -> String {
    format!("the subscription {name:?} of the group {group:?} has the pattern {known}, not {wanted}")
}

/// Patterns and types by which each database's condition is held against the reference.
#[cfg(test)]
pub(crate) mod cases {
    use eventbroker::{Event, Pattern, Source};
    use proptest::prelude::*;

    /// A few short segments, so that types and patterns often match; with every character that `GLOB`, `LIKE` or JSON takes for more
    /// than itself.
    const SEGMENT: &str = r#"a|b|ab|\[a\]|a\?|\[|\]|"|\\|\\"|\^|-|ä|\$|%|_|A"#;

    fn dotted(segment: &'static str, rest: &'static str) -> impl Strategy<Value = String> {
        (prop::collection::vec(segment, 1..5), prop::option::weighted(0.3, Just(rest)))
            .prop_map(|(segments, rest)| segments.join(".") + rest.unwrap_or_default())
    }

    pub(crate) fn patterns() -> impl Strategy<Value = Pattern> {
        let segment: &'static str = Box::leak(format!("{SEGMENT}|\\*|\\*|\\*").into_boxed_str());
        prop_oneof![8 => dotted(segment, ".**"), 1 => Just("*".to_owned()), 1 => Just("**".to_owned())]
            .prop_map(|pattern| Pattern::parse(&pattern).expect("a pattern"))
    }

    pub(crate) fn event_types() -> impl Strategy<Value = Vec<String>> {
        let valid = |event_type: String| {
            Event::builder(Source::System, event_type.as_str()).build().expect("a valid type");
            event_type
        };
        prop::collection::vec(dotted(SEGMENT, ".a").prop_map(valid), 1..8)
    }
}
