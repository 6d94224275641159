//! A select whose conditions depend on a request, with its values.

use eventbroker::Pattern;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::pattern::{columns, condition};
use crate::pattern::PatternColumns;

/// A select, and the values of its parameters.
#[derive(Debug, Clone)]
pub(crate) struct Select {
    text: String,
    /// What joins the next condition.
    join: &'static str,
    pub(crate) values: Vec<Value>,
}

impl Select {
    /// A select without a condition.
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), join: " WHERE ", values: Vec::new() }
    }

    /// A select that ends in a condition, and its first values.
    pub(crate) fn with_condition(text: String, values: Vec<Value>) -> Self {
        Self { text, join: " AND ", values }
    }

    pub(crate) fn and(&mut self, condition: &str) {
        self.text.push_str(self.join);
        self.text.push_str(condition);
        self.join = " AND ";
    }

    /// Adds a condition that ends in a value, if there is one.
    pub(crate) fn and_if(&mut self, condition: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.values.push(value.into());
            self.and(&format!("{condition} ?{}", self.values.len()));
        }
    }

    /// Adds the condition that the type of `e` matches a pattern.
    pub(crate) fn and_matches(&mut self, pattern: &Pattern) {
        let PatternColumns { final_rest, dots, glob, literals } = columns(pattern);
        let first = self.values.len() + 1;
        self.values.extend([final_rest.into(), (dots as i64).into(), glob.into(), literals.into()]);
        let [rest, dots, glob, literals] = [first, first + 1, first + 2, first + 3];
        self.and(&format!(
            "EXISTS (SELECT 1 FROM (SELECT ?{rest} AS final_rest, ?{dots} AS dots, ?{glob} AS glob, ?{literals} AS literals) s \
             WHERE {})",
            condition("e.type")
        ));
    }

    pub(crate) fn order_by(&mut self, order: &str) {
        self.text.push_str(&format!(" ORDER BY {order}"));
    }

    pub(crate) fn limit(&mut self, limit: usize) {
        self.values.push(Value::Integer(limit as i64));
        self.text.push_str(&format!(" LIMIT ?{}", self.values.len()));
    }

    /// Reads all rows.
    pub(crate) fn read<T>(
        &self,
        connection: &Connection,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        connection.prepare_cached(&self.text)?.query_map(params_from_iter(&self.values), read)?.collect()
    }
}
