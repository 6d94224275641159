//! An event as a row of the table, and back.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use eventbroker::dead_letter::DeadLetter;
use eventbroker::provider::BackendError;
use eventbroker::{Event, EventId, Status};
use postgres::Row;
use postgres::types::ToSql;

use crate::columns::{Columns, Unreadable, errors, metadata_text};
use crate::postgres::transport::Value;

/// The columns of an event, in the order in which [`event`] reads them.
macro_rules! event_columns {
    () => {
        "e.id, e.source, e.type, e.payload::text, e.user_id, e.session_id, e.instance_id, e.schema, e.entity, e.operation, \
         e.created_at, e.created_nanos, e.metadata::text, e.key"
    };
}
/// The columns of an event and its progress, in the order in which [`event_with_progress`] reads them.
macro_rules! progress_columns {
    () => {
        concat!(event_columns!(), ", e.status, e.retry_count, e.processed_at, e.completed_at, e.error")
    };
}
pub(crate) use {event_columns, progress_columns};

/// The number of columns in `event_columns` and in `progress_columns`.
const EVENT_COLUMNS: usize = 14;
pub(crate) const PROGRESS_COLUMNS: usize = EVENT_COLUMNS + 5;

/// A time in the microseconds that PostgreSQL keeps, and the nanoseconds behind them.
pub(crate) fn split_time(time: SystemTime) -> (SystemTime, i16) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let rest = since.subsec_nanos() % 1_000;
    (SystemTime::UNIX_EPOCH + (since - Duration::from_nanos(rest.into())), rest as i16)
}

/// The values of the statement `insert`: a column of all events each, and the provider that publishes them.
pub(crate) fn insert_values<'a>(events: &[&'a Event], origin: Option<&'a str>) -> Vec<Value<'a>> {
    fn column<'a, T: ToSql + Sync + Send + 'a>(events: &[&'a Event], value: fn(&'a Event) -> T) -> Value<'a> {
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

/// Reads an event whose columns begin at `first`, without its progress.
pub(crate) fn event(row: &Row, first: usize) -> Result<Event, Unreadable> {
    let nanos: i16 = get(row, first + 11)?;
    let created: SystemTime = get(row, first + 10)?;
    let columns = Columns {
        id: get(row, first)?,
        source: get(row, first + 1)?,
        event_type: get(row, first + 2)?,
        payload: get(row, first + 3)?,
        user_id: get(row, first + 4)?,
        session_id: get(row, first + 5)?,
        instance_id: get(row, first + 6)?,
        schema: get(row, first + 7)?,
        entity: get(row, first + 8)?,
        operation: get(row, first + 9)?,
        created_at: created + Duration::from_nanos(nanos.try_into().unwrap_or(0)),
        metadata: get(row, first + 12)?,
        key: get(row, first + 13)?,
    };
    columns.into_event()
}

/// Reads an event with its progress from a select that begins with `progress_columns`.
pub(crate) fn event_with_progress(row: &Row) -> Result<Event, Unreadable> {
    let status = parsed::<Status>(&get::<String>(row, EVENT_COLUMNS)?)?;
    let retries: i32 = get(row, EVENT_COLUMNS + 1)?;
    let (processed, completed) = (get(row, EVENT_COLUMNS + 2)?, get(row, EVENT_COLUMNS + 3)?);
    let error = get(row, EVENT_COLUMNS + 4)?;
    Ok(event(row, 0)?.with_progress(status, retries.try_into().unwrap_or(0), processed, completed, error))
}

/// Reads the id of an event from the first column.
pub(crate) fn id(row: &Row) -> Result<EventId, Unreadable> {
    parsed(&get::<String>(row, 0)?)
}

/// Reads a dead letter from a row of the statement `dead_letters`.
pub(crate) fn dead_letter(row: &Row) -> Result<DeadLetter, Unreadable> {
    const FIRST: usize = PROGRESS_COLUMNS;
    let reason: String = get(row, FIRST + 2)?;
    let name: String = get(row, FIRST + 1)?;
    let number = get::<i64>(row, FIRST)? as u64;
    let mut letter = DeadLetter::new(number, event_with_progress(row)?, name, parsed(&reason)?);
    letter.attempts = get::<i32>(row, FIRST + 3)?.try_into().unwrap_or(0);
    letter.dead_at = get(row, FIRST + 4)?;
    letter.errors = errors(&get::<String>(row, FIRST + 5)?)?;
    letter.first_failed_at = letter.errors.first().map_or(letter.dead_at, |first| first.at);
    letter.requeues = get::<i32>(row, FIRST + 6)?.try_into().unwrap_or(0);
    Ok(letter)
}

/// The error of a row that another program has written or changed.
pub(crate) fn unreadable(problem: &Unreadable) -> BackendError {
    BackendError::Unavailable(format!("PostgreSQL: a row can't be read: {problem}"))
}

fn get<'a, T: postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Unreadable> {
    row.try_get(column).map_err(Unreadable::new)
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Unreadable> {
    text.parse().map_err(Unreadable::new)
}
