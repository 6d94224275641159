//! The selects of PostgreSQL.

use std::time::SystemTime;

use eventbroker::Pattern;
use postgres::{Error, Row};

use super::pattern::{columns, condition};
use super::rows::split_time;
use crate::pattern::PatternColumns;
use crate::postgres::transport::{Session, Value, references};
use crate::select::{self, Dialect};

pub(crate) type Select = select::Select<Sql>;

/// PostgreSQL's dialect.
pub(crate) struct Sql;

impl Dialect for Sql {
    type Value = Value<'static>;

    const PARAMETER: char = '$';
    const PATTERN_CASTS: [&str; 4] = ["::boolean", "::integer", "::text", "::text"];
    const CREATED: &str = "(e.created_at, e.created_nanos)";

    fn text(text: String) -> Self::Value {
        Box::new(text)
    }

    fn number(number: i64) -> Self::Value {
        Box::new(number)
    }

    fn created(time: SystemTime) -> Vec<Self::Value> {
        let (time, nanos) = split_time(time);
        vec![Box::new(time), Box::new(nanos)]
    }

    fn pattern(pattern: &Pattern) -> [Self::Value; 4] {
        let PatternColumns { final_rest, dots, glob, literals } = columns(pattern);
        [Box::new(final_rest), Box::new(dots as i32), Box::new(glob), Box::new(literals)]
    }

    fn condition() -> String {
        condition("e.type")
    }
}

impl Select {
    /// Reads all rows.
    pub(crate) fn read(&self, session: &mut Session) -> Result<Vec<Row>, Error> {
        session.query(&self.text, &references(&self.values))
    }
}
