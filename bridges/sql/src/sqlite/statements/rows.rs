//! An event as a row of the table, and back.

use std::str::FromStr;
use std::time::SystemTime;

use eventbroker::dead_letter::DeadLetter;
use eventbroker::{Event, EventId, Status};
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Error, Row};

use crate::columns::{Columns, errors, metadata_text, row_values};
pub(crate) use crate::columns::{errors_text, time_text};
use crate::value::SqlValue;

/// The columns of an event, in the order in which [`event`] reads them.
macro_rules! event_columns {
    () => {
        "e.id, e.source, e.type, e.payload, e.user_id, e.session_id, e.instance_id, e.schema, e.entity, e.operation, \
         e.created_at, e.metadata, e.key"
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
const EVENT_COLUMNS: usize = 13;
const PROGRESS_COLUMNS: usize = EVENT_COLUMNS + 5;

/// An event as the values of the statement `insert`.
pub(crate) fn values<'a>(event: &'a Event, origin: Option<&'a str>) -> [SqlValue<'a>; 14] {
    let created = time_text(event.created_at()).into();
    let metadata = metadata_text(event).map_or(SqlValue::Null, SqlValue::from);
    row_values(event, [created, metadata, event.key().into(), origin.into()])
}

/// Reads an event whose columns begin at `first`, without its progress.
pub(crate) fn event(row: &Row<'_>, first: usize) -> rusqlite::Result<Event> {
    let columns = Columns {
        id: row.get(first)?,
        source: row.get(first + 1)?,
        event_type: row.get(first + 2)?,
        payload: row.get(first + 3)?,
        user_id: row.get(first + 4)?,
        session_id: row.get(first + 5)?,
        instance_id: row.get(first + 6)?,
        schema: row.get(first + 7)?,
        entity: row.get(first + 8)?,
        operation: row.get(first + 9)?,
        created_at: time(row, first + 10)?.unwrap_or(SystemTime::UNIX_EPOCH),
        metadata: row.get(first + 11)?,
        key: row.get(first + 12)?,
    };
    columns.into_event().map_err(|error| unreadable(first, error))
}

/// Reads an event with its progress from a select that begins with `progress_columns`.
pub(crate) fn event_with_progress(row: &Row<'_>) -> rusqlite::Result<Event> {
    let status: String = row.get(EVENT_COLUMNS)?;
    let status = parsed::<Status>(EVENT_COLUMNS, &status)?;
    let (processed, completed) = (time(row, EVENT_COLUMNS + 2)?, time(row, EVENT_COLUMNS + 3)?);
    let error = row.get(EVENT_COLUMNS + 4)?;
    Ok(event(row, 0)?.with_progress(status, row.get(EVENT_COLUMNS + 1)?, processed, completed, error))
}

/// Reads the id of an event from the first column.
pub(crate) fn id(row: &Row<'_>) -> rusqlite::Result<EventId> {
    id_at(row, 0)
}

/// Reads the id of an event from a column.
pub(crate) fn id_at(row: &Row<'_>, column: usize) -> rusqlite::Result<EventId> {
    parsed(column, &row.get::<_, String>(column)?)
}

/// Reads a dead letter from a row of the statement `dead_letters`.
pub(crate) fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    const FIRST: usize = PROGRESS_COLUMNS;
    let reason: String = row.get(FIRST + 2)?;
    let name: String = row.get(FIRST + 1)?;
    let number = row.get::<_, i64>(FIRST)? as u64;
    let mut letter = DeadLetter::new(number, event_with_progress(row)?, name, parsed(FIRST + 2, &reason)?);
    letter.attempts = row.get(FIRST + 3)?;
    letter.dead_at = time(row, FIRST + 4)?.unwrap_or(SystemTime::UNIX_EPOCH);
    letter.errors = errors(&row.get::<_, String>(FIRST + 5)?).map_err(|error| unreadable(FIRST + 5, error))?;
    letter.first_failed_at = letter.errors.first().map_or(letter.dead_at, |first| first.at);
    letter.requeues = row.get(FIRST + 6)?;
    Ok(letter)
}

pub(crate) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<SystemTime>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| parsed::<Timestamp>(column, &text).map(SystemTime::from)).transpose()
}

fn parsed<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    column: usize,
    text: &str,
) -> rusqlite::Result<T> {
    text.parse().map_err(|error| unreadable(column, error))
}

/// The error of a row that another program has written or changed.
fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
