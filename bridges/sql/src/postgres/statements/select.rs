//! A statement that depends on what is asked, with the values in it.

use std::time::SystemTime;

use eventbroker::Pattern;
use postgres::types::ToSql;

use crate::postgres::statements::pattern::{condition, form};
use crate::postgres::statements::rows::split_time;

pub(crate) type Value = Box<dyn ToSql + Sync + Send>;

pub(crate) struct Query {
    pub(crate) text: String,
    values: Vec<Value>,
}

impl Query {
    /// A statement that ends in a condition, and its first values.
    pub(crate) fn new(text: String, values: Vec<Value>) -> Self {
        Self { text, values }
    }

    /// The number of a value.
    pub(crate) fn bind(&mut self, value: impl ToSql + Sync + Send + 'static) -> usize {
        self.values.push(Box::new(value));
        self.values.len()
    }

    /// One more condition, if there is a value for it.
    pub(crate) fn and_if<T: ToSql + Sync + Send + 'static>(&mut self, condition: &str, value: Option<T>) {
        if let Some(value) = value {
            let number = self.bind(value);
            self.text.push_str(&format!(" AND {condition} ${number}"));
        }
    }

    /// The same for the time of an event, to the nanosecond.
    pub(crate) fn and_created(&mut self, comparison: &str, time: Option<SystemTime>) {
        if let Some((time, nanos)) = time.map(split_time) {
            let (time, nanos) = (self.bind(time), self.bind(nanos));
            self.text.push_str(&format!(" AND (e.created_at, e.created_nanos) {comparison} (${time}, ${nanos})"));
        }
    }

    /// The type matches a pattern.
    pub(crate) fn and_matches(&mut self, pattern: &Pattern) {
        let form = form(pattern);
        let rest = self.bind(form.final_rest);
        let dots = self.bind(form.dots as i32);
        let glob = self.bind(form.glob);
        let literals = self.bind(form.literals);
        self.text.push_str(&format!(
            " AND EXISTS (SELECT 1 FROM (SELECT ${rest}::boolean AS final_rest, ${dots}::integer AS dots, ${glob}::text AS glob, \
             ${literals}::text AS literals) s WHERE {})",
            condition("e.type")
        ));
    }

    pub(crate) fn limit(&mut self, limit: usize) {
        let number = self.bind(limit as i64);
        self.text.push_str(&format!(" LIMIT ${number}"));
    }

    pub(crate) fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }
}
