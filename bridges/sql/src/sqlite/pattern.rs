//! The SQL form of a pattern, so that the trigger that makes the deliveries needs nothing but SQLite itself.
//!
//! In a type with as many dots as the pattern, each `*` of a `GLOB` stands for exactly one segment, because the dots between them
//! are used up by those of the pattern, and no segment is empty. With a final `**` that still holds if no `*` stands before it.
//! Only for the rest (`*.b.**`) the segments are compared one by one.

use eventbroker::Pattern;

/// What is stored of a pattern.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// It ends in `**`, or is the `*` that matches every type.
    pub(super) final_rest: bool,
    /// Exactly so many dots has a type that matches; with a final rest at least so many.
    pub(super) dots: usize,
    pub(super) glob: String,
    /// The segments that are not wildcards, by index, as a JSON object; only where the glob does not suffice.
    pub(super) literals: Option<String>,
}

/// The condition that a row `s` of the subscriptions matches an event's type.
pub(super) fn condition(event_type: &str) -> String {
    let dots = format!("length({event_type}) - length(replace({event_type}, '.', ''))");
    let array = format!(r#"'["' || replace(replace(replace({event_type}, '\', '\\'), '"', '\"'), '.', '","') || '"]'"#);
    format!(
        "CASE s.final_rest WHEN 0 THEN {dots} = s.dots ELSE {dots} >= s.dots END
        AND {event_type} GLOB s.glob
        AND (s.literals IS NULL OR NOT EXISTS (
            SELECT 1 FROM json_each(s.literals) l
            WHERE l.value IS NOT json_extract({array}, '$[' || l.key || ']')))"
    )
}

impl Form {
    pub(super) fn of(pattern: &Pattern) -> Self {
        if pattern.is_match_all() {
            return Self { final_rest: true, dots: 0, glob: "*".to_owned(), literals: None };
        }
        let segments: Vec<&str> = pattern.as_str().split('.').collect();
        let final_rest = segments.last() == Some(&"**");
        let glob: Vec<String> = segments.iter().map(|segment| glob_of(segment)).collect();
        let before_rest = &segments[..segments.len() - usize::from(final_rest)];
        let literals = (final_rest && before_rest.contains(&"*")).then(|| {
            let literal = |(index, segment): (usize, &&str)| {
                (*segment != "*").then(|| (index.to_string(), serde_json::Value::from(*segment)))
            };
            let literals: serde_json::Map<_, _> = before_rest.iter().enumerate().filter_map(literal).collect();
            serde_json::Value::from(literals).to_string()
        });
        Self { final_rest, dots: segments.len() - 1, glob: glob.join("."), literals }
    }
}

fn glob_of(segment: &str) -> String {
    match segment {
        "*" | "**" => "*".to_owned(),
        literal => literal.replace('[', "[[]").replace('?', "[?]"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, condition};
    use eventbroker::{Event, Pattern, Source};
    use proptest::prelude::*;
    use rusqlite::{Connection, params};

    /// Types and patterns of a few short segments, so that they often match; with every character that `GLOB` or JSON takes
    /// for more than itself.
    const SEGMENT: &str = r#"a|b|ab|\[a\]|a\?|\[|\]|"|\\|\\"|\^|-|ä|\$|%|_|A"#;

    fn dotted(segment: &'static str, rest: &'static str) -> impl Strategy<Value = String> {
        (prop::collection::vec(segment, 1..5), prop::option::weighted(0.3, Just(rest)))
            .prop_map(|(segments, rest)| segments.join(".") + rest.unwrap_or_default())
    }

    fn wanted() -> impl Strategy<Value = String> {
        let segment: &'static str = Box::leak(format!("{SEGMENT}|\\*|\\*|\\*").into_boxed_str());
        prop_oneof![8 => dotted(segment, ".**"), 1 => Just("*".to_owned()), 1 => Just("**".to_owned())]
    }

    fn sqlite_matches(connection: &Connection, pattern: &Pattern, event_type: &str) -> bool {
        let form = Form::of(pattern);
        let query = format!(
            "SELECT {} FROM (SELECT ?1 AS final_rest, ?2 AS dots, ?3 AS glob, ?4 AS literals, ?5 AS event_type) s",
            condition("s.event_type")
        );
        let values = params![form.final_rest, form.dots as i64, form.glob, form.literals, event_type];
        let matched: Option<bool> = connection.query_row(&query, values, |row| row.get(0)).expect("a condition");
        matched.expect("true or false")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn sqlite_matches_as_the_reference_does(pattern in wanted(), types in prop::collection::vec(dotted(SEGMENT, ".a"), 1..8)) {
            let connection = Connection::open_in_memory().expect("a database");
            let pattern = Pattern::parse(&pattern).expect("a pattern");
            for event_type in types {
                Event::builder(Source::System, event_type.as_str()).build().expect("a valid type");
                let matched = sqlite_matches(&connection, &pattern, &event_type);
                prop_assert_eq!(matched, pattern.matches(&event_type), "{} and {}", pattern, event_type);
            }
        }
    }
}
