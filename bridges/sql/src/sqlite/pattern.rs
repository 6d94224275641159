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
    let array = format!(
        r#"'["' || replace(replace(replace({event_type}, '\', '\\'), '"', '\"'), '.', '","') || '"]'"#
    );
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
