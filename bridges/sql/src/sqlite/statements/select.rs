//! The selects of SQLite.

use std::time::SystemTime;

use eventbroker::Pattern;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::pattern::{columns, condition};
use crate::columns::time_text;
use crate::pattern::PatternColumns;
use crate::select::{self, Dialect};

pub(crate) type Select = select::Select<Sql>;

/// SQLite's dialect.
pub(crate) struct Sql;

impl Dialect for Sql {
    type Value = Value;

    const PARAMETER: char = '?';
    const PATTERN_CASTS: [&str; 4] = [""; 4];
    const CREATED: &str = "e.created_at";

    fn text(text: String) -> Value {
        text.into()
    }

    fn number(number: i64) -> Value {
        number.into()
    }

    fn created(time: SystemTime) -> Vec<Value> {
        vec![time_text(time).into()]
    }

    fn pattern(pattern: &Pattern) -> [Value; 4] {
        let PatternColumns { final_rest, dots, glob, literals } = columns(pattern);
        [final_rest.into(), (dots as i64).into(), glob.into(), literals.into()]
    }

    fn condition() -> String {
        condition("e.type")
    }
}

impl Select {
    /// Reads all rows.
    pub(crate) fn read<T>(
        &self,
        connection: &Connection,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        connection.prepare_cached(&self.text)?.query_map(params_from_iter(&self.values), read)?.collect()
    }
}
