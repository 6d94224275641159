//! The SQL form of a pattern for PostgreSQL: a `LIKE`, and a count of dots.

use eventbroker::Pattern;

use crate::pattern::Form;

/// The condition that a row `s` of the subscriptions matches an event's type.
pub(super) fn condition(event_type: &str) -> String {
    let dots = format!("length({event_type}) - length(replace({event_type}, '.', ''))");
    format!(
        "CASE WHEN s.final_rest THEN {dots} >= s.dots ELSE {dots} = s.dots END \
         AND {event_type} LIKE s.glob \
         AND (s.literals IS NULL OR NOT EXISTS (SELECT 1 FROM json_each_text(s.literals::json) l \
         WHERE l.value IS DISTINCT FROM split_part({event_type}, '.', l.key::integer + 1)))"
    )
}

/// The form of a pattern.
pub(super) fn form(pattern: &Pattern) -> Form {
    Form::of(pattern, "%", |literal| literal.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}
