//! A pattern as columns of the subscriptions' table, so that the trigger that makes the deliveries needs nothing but the database. Each
//! database has its own condition on them.
//!
//! In a type with as many dots as the pattern, each wildcard of a glob matches exactly one segment: the pattern's dots match all dots
//! of the type, and no segment is empty. With a final `**` this still holds if no `*` stands before it. Only the other patterns
//! (`*.b.**`) are compared segment by segment.

use eventbroker::Pattern;

/// A pattern as the table holds it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PatternColumns {
    /// The pattern ends in `**`, or is the `*` that matches every type.
    pub(crate) final_rest: bool,
    /// The number of dots in a matching type; with `final_rest` the smallest number.
    pub(crate) dots: usize,
    pub(crate) glob: String,
    /// The segments that are not wildcards, by index, as a JSON object. Only for a pattern that its glob does not describe.
    pub(crate) literals: Option<String>,
}

impl PatternColumns {
    /// `any` is the database's wildcard for any text, and `literal` escapes a segment that matches only itself.
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

/// Patterns and types to compare each database's condition with the reference.
#[cfg(test)]
pub(crate) mod cases {
    use eventbroker::{Event, Pattern, Source};
    use proptest::prelude::*;

    /// A few short segments, so that types and patterns often match; with every character that has a meaning in `GLOB`, `LIKE` or JSON.
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
