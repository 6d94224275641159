//! A pattern in PostgreSQL: a `LIKE`, and a number of dots.

use eventbroker::Pattern;

use crate::pattern::PatternColumns;

/// The condition that a row `s` of the subscriptions matches an event's type.
pub(crate) fn condition(event_type: &str) -> String {
    let dots = format!("length({event_type}) - length(replace({event_type}, '.', ''))");
    format!(
        "CASE WHEN s.final_rest THEN {dots} >= s.dots ELSE {dots} = s.dots END \
         AND {event_type} LIKE s.glob \
         AND (s.literals IS NULL OR NOT EXISTS (SELECT 1 FROM json_each_text(s.literals::json) l \
         WHERE l.value IS DISTINCT FROM split_part({event_type}, '.', l.key::integer + 1)))"
    )
}

/// A pattern as the table holds it.
pub(crate) fn columns(pattern: &Pattern) -> PatternColumns {
    PatternColumns::of(pattern, "%", |literal| literal.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{columns, condition};
    use crate::pattern::cases::{event_types, patterns};
    use eventbroker::Pattern;
    use eventbroker_conformance::postgres::Server;
    use postgres::{Client, NoTls, Row};
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    fn postgres_matches(client: &mut Client, pattern: &Pattern, event_types: &[String]) -> Vec<bool> {
        let columns = columns(pattern);
        let query = format!(
            "SELECT {} FROM (SELECT $1::boolean AS final_rest, $2::integer AS dots, $3::text AS glob, $4::text AS literals) s, \
             unnest($5::text[]) WITH ORDINALITY AS e(type, number) ORDER BY e.number",
            condition("e.type")
        );
        let dots = columns.dots as i32;
        let rows = client.query(&query, &[&columns.final_rest, &dots, &columns.glob, &columns.literals, &event_types]);
        let matched = |row: &Row| row.get::<_, Option<bool>>(0).expect("true or false");
        rows.expect("a condition").iter().map(matched).collect()
    }

    #[test]
    fn postgres_matches_as_the_reference_does() {
        let server = Server::start();
        let client = RefCell::new(Client::connect(&server.database(), NoTls).expect("it connects"));
        let mut runner = TestRunner::new(ProptestConfig::with_cases(4_000));
        let held = runner.run(&(patterns(), event_types()), |(pattern, event_types)| {
            let matched = postgres_matches(&mut client.borrow_mut(), &pattern, &event_types);
            let expected: Vec<bool> = event_types.iter().map(|event_type| pattern.matches(event_type)).collect();
            prop_assert_eq!(matched, expected, "{} and {:?}", pattern, event_types);
            Ok(())
        });
        held.unwrap_or_else(|failed| panic!("{failed}"));
    }
}
