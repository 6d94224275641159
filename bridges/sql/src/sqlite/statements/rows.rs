//! An event as a row of the table, and back.

use std::time::SystemTime;

use eventbroker::Event;
use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::Type;

use crate::columns::{ReadRow, Unreadable, metadata_text, row_values, time_text};
use crate::value::SqlValue;

/// The columns of an event, in the order in which `event` reads them.
macro_rules! event_columns {
    () => {
        "e.id, e.source, e.type, e.payload, e.user_id, e.session_id, e.instance_id, e.schema, e.entity, e.operation, \
         e.created_at, e.metadata, e.key"
    };
}
pub(crate) use event_columns;

/// An event as the values of the statement `insert`.
pub(crate) fn values<'a>(event: &'a Event, origin: Option<&'a str>) -> [SqlValue<'a>; 14] {
    let created = time_text(event.created_at()).into();
    let metadata = metadata_text(event).map_or(SqlValue::Null, SqlValue::from);
    row_values(event, [created, metadata, event.key().into(), origin.into()])
}

impl ReadRow for Row<'_> {
    const EVENT_COLUMNS: usize = 13;

    fn text(&self, column: usize) -> Result<Option<String>, Unreadable> {
        self.get(column).map_err(Unreadable::new)
    }

    fn integer(&self, column: usize) -> Result<Option<i64>, Unreadable> {
        self.get(column).map_err(Unreadable::new)
    }

    fn time(&self, column: usize) -> Result<Option<SystemTime>, Unreadable> {
        let time = self.text(column)?.map(|text| text.parse::<Timestamp>().map_err(Unreadable::new));
        Ok(time.transpose()?.map(SystemTime::from))
    }

    fn created_at(&self, first: usize) -> Result<Option<SystemTime>, Unreadable> {
        self.time(first + 10)
    }
}

impl From<Unreadable> for rusqlite::Error {
    fn from(error: Unreadable) -> Self {
        Self::FromSqlConversionFailure(0, Type::Text, Box::new(error))
    }
}
