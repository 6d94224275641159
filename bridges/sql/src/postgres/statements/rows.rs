//! An event as a row of the table, and back.

use std::time::{Duration, SystemTime};

use eventbroker::Event;
use eventbroker::provider::BackendError;
use postgres::Row;
use postgres::types::Type;

use crate::columns::{ReadRow, Unreadable, metadata_text};
use crate::postgres::transport::{Parameter, Value};

/// The columns of an event, in the order in which `event` reads them.
macro_rules! event_columns {
    () => {
        "e.id, e.source, e.type, e.payload::text, e.user_id, e.session_id, e.instance_id, e.schema, e.entity, e.operation, \
         e.created_at, e.metadata::text, e.key, e.created_nanos"
    };
}
pub(crate) use event_columns;

/// A time in the microseconds that PostgreSQL keeps, and the nanoseconds behind them.
pub(crate) fn split_time(time: SystemTime) -> (SystemTime, i16) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let rest = since.subsec_nanos() % 1_000;
    (SystemTime::UNIX_EPOCH + (since - Duration::from_nanos(rest.into())), rest as i16)
}

/// The values of the statement `insert`: a column of all events each, and the provider that publishes them.
pub(crate) fn insert_values<'a>(events: &[&'a Event], origin: Option<&'a str>) -> Vec<Value<'a>> {
    fn column<'a, T>(events: &[&'a Event], value: fn(&'a Event) -> T) -> Value<'a>
    where
        Vec<T>: Parameter + Send + 'a,
    {
        Box::new(events.iter().map(|event| value(event)).collect::<Vec<T>>())
    }
    vec![
        column(events, |event| event.id().to_string()),
        column(events, |event| event.source().as_str()),
        column(events, |event| event.event_type().as_str()),
        column(events, |event| (!event.payload().is_null()).then(|| event.payload().as_str())),
        column(events, Event::user_id),
        column(events, Event::session_id),
        column(events, Event::instance_id),
        column(events, Event::schema),
        column(events, Event::entity),
        column(events, Event::operation),
        column(events, |event| split_time(event.created_at()).0),
        column(events, |event| split_time(event.created_at()).1),
        column(events, metadata_text),
        column(events, Event::key),
        Box::new(origin),
    ]
}

/// A text without NUL, which PostgreSQL cannot store.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl ReadRow for Row {
    const EVENT_COLUMNS: usize = 14;

    fn text(&self, column: usize) -> Result<Option<String>, Unreadable> {
        self.try_get(column).map_err(Unreadable::new)
    }

    fn integer(&self, column: usize) -> Result<Option<i64>, Unreadable> {
        let integer = match *self.columns()[column].type_() {
            Type::INT2 => self.try_get::<_, Option<i16>>(column).map(|number| number.map(i64::from)),
            Type::INT4 => self.try_get::<_, Option<i32>>(column).map(|number| number.map(i64::from)),
            _ => self.try_get(column),
        };
        integer.map_err(Unreadable::new)
    }

    fn time(&self, column: usize) -> Result<Option<SystemTime>, Unreadable> {
        self.try_get(column).map_err(Unreadable::new)
    }

    fn created_at(&self, first: usize) -> Result<Option<SystemTime>, Unreadable> {
        exact_time(self, first + 10, first + 13)
    }
}

/// Reads a time to the nanosecond.
pub(crate) fn exact_time(row: &Row, time: usize, nanos: usize) -> Result<Option<SystemTime>, Unreadable> {
    let nanos = Duration::from_nanos(row.number(nanos)?);
    Ok(row.time(time)?.map(|time| time + nanos))
}

/// The error of a row that another program has written or changed.
pub(crate) fn unreadable(problem: Unreadable) -> BackendError {
    BackendError::Unavailable(format!("PostgreSQL: a row can't be read: {problem}"))
}
