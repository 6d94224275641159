//! A select whose conditions depend on a request, with its values.

use std::time::SystemTime;

use eventbroker::Pattern;
use postgres::types::ToSql;
use postgres::{Error, Row};

use super::pattern::{columns, condition};
use super::rows::split_time;
use crate::pattern::PatternColumns;
use crate::postgres::transport::{Session, Value, references};

/// A select, and the values of its parameters.
pub(crate) struct Select {
    pub(crate) text: String,
    values: Vec<Value<'static>>,
}

impl Select {
    /// A select that ends in a condition, and its first values.
    pub(crate) fn with_condition(text: String, values: Vec<Value<'static>>) -> Self {
        Self { text, values }
    }

    /// Adds a value. Returns its number.
    fn bind(&mut self, value: impl ToSql + Sync + Send + 'static) -> usize {
        self.values.push(Box::new(value));
        self.values.len()
    }

    pub(crate) fn and(&mut self, condition: &str) {
        self.text.push_str(" AND ");
        self.text.push_str(condition);
    }

    /// Adds a condition that ends in a value, if there is one.
    pub(crate) fn and_if(&mut self, condition: &str, value: Option<impl ToSql + Sync + Send + 'static>) {
        if let Some(value) = value {
            let number = self.bind(value);
            self.and(&format!("{condition} ${number}"));
        }
    }

    /// Adds a condition on the time of the event, to the nanosecond, if there is a time to compare with.
    pub(crate) fn and_created(&mut self, comparison: &str, time: Option<SystemTime>) {
        if let Some((time, nanos)) = time.map(split_time) {
            let (time, nanos) = (self.bind(time), self.bind(nanos));
            self.and(&format!("(e.created_at, e.created_nanos) {comparison} (${time}, ${nanos})"));
        }
    }

    /// Adds the condition that the type of `e` matches a pattern.
    pub(crate) fn and_matches(&mut self, pattern: &Pattern) {
        let PatternColumns { final_rest, dots, glob, literals } = columns(pattern);
        let (rest, dots) = (self.bind(final_rest), self.bind(dots as i32));
        let (glob, literals) = (self.bind(glob), self.bind(literals));
        self.and(&format!(
            "EXISTS (SELECT 1 FROM (SELECT ${rest}::boolean AS final_rest, ${dots}::integer AS dots, ${glob}::text AS glob, \
             ${literals}::text AS literals) s WHERE {})",
            condition("e.type")
        ));
    }

    pub(crate) fn order_by(&mut self, order: &str) {
        self.text.push_str(&format!(" ORDER BY {order}"));
    }

    pub(crate) fn limit(&mut self, limit: usize) {
        let number = self.bind(limit as i64);
        self.text.push_str(&format!(" LIMIT ${number}"));
    }

    /// Reads all rows.
    pub(crate) fn read(&self, session: &mut Session) -> Result<Vec<Row>, Error> {
        session.query(&self.text, &references(&self.values))
    }
}
