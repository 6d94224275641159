//! A pattern in SQLite: a `GLOB`, and a number of dots.

use eventbroker::Pattern;

use crate::pattern::PatternColumns;

/// The condition that a row `s` of the subscriptions matches an event's type.
pub(crate) fn condition(event_type: &str) -> String {
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

/// A pattern as the table holds it.
pub(crate) fn columns(pattern: &Pattern) -> PatternColumns {
    PatternColumns::of(pattern, "*", |literal| literal.replace('[', "[[]").replace('?', "[?]"))
}

#[cfg(test)]
mod tests {
    use super::{columns, condition};
    use crate::pattern::cases::{event_types, patterns};
    use eventbroker::Pattern;
    use proptest::prelude::*;
    use rusqlite::{Connection, params};

    fn sqlite_matches(connection: &Connection, pattern: &Pattern, event_type: &str) -> bool {
        let columns = columns(pattern);
        let query = format!(
            "SELECT {} FROM (SELECT ?1 AS final_rest, ?2 AS dots, ?3 AS glob, ?4 AS literals, ?5 AS event_type) s",
            condition("s.event_type")
        );
        let values = params![columns.final_rest, columns.dots as i64, columns.glob, columns.literals, event_type];
        let matched: Option<bool> = connection.query_row(&query, values, |row| row.get(0)).expect("a condition");
        matched.expect("true or false")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn sqlite_matches_as_the_reference_does(pattern in patterns(), event_types in event_types()) {
            let connection = Connection::open_in_memory().expect("a database");
            for event_type in event_types {
                let matched = sqlite_matches(&connection, &pattern, &event_type);
                prop_assert_eq!(matched, pattern.matches(&event_type), "{} and {}", pattern, event_type);
            }
        }
    }
}
