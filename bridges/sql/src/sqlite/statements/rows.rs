//! An event as a row of the table, and back.

use std::str::FromStr;
use std::time::SystemTime;

use eventbroker::dead_letter::DeadLetter;
use eventbroker::{Event, EventId, Status};
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Error, Row, Statement, params_from_iter};

use crate::columns::{Columns, errors, metadata_text};
pub(crate) use crate::columns::{errors_text, time_text};
use crate::value::SqlValue;

/// The columns of an event in a select.
pub(crate) const EVENT_COLUMNS: usize = 13;

/// An event as the values of the columns that `insert` names.
pub(crate) fn values<'a>(event: &'a Event, origin: Option<&'a str>) -> [SqlValue<'a>; 14] {
    [
        event.id().to_string().into(),
        Some(event.source().as_str()).into(),
        Some(event.event_type().as_str()).into(),
        (!event.payload().is_null()).then(|| event.payload().as_str()).into(),
        event.user_id().map_or(SqlValue::Null, SqlValue::Integer),
        event.session_id().into(),
        event.instance_id().into(),
        event.schema().into(),
        event.entity().into(),
        event.operation().into(),
        time_text(event.created_at()).into(),
        metadata_text(event).map_or(SqlValue::Null, SqlValue::from),
        event.key().into(),
        origin.into(),
    ]
}

/// Inserts an event. False if its id is known.
pub(crate) fn insert(statement: &mut Statement<'_>, event: &Event, origin: Option<&str>) -> rusqlite::Result<bool> {
    Ok(statement.execute(params_from_iter(values(event, origin)))? > 0)
}

/// Reads an event whose columns begin at `first`. How far its handling has come is not read.
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

/// Reads an event with its progress, of a select that begins with it.
pub(crate) fn event_with_progress(row: &Row<'_>) -> rusqlite::Result<Event> {
    let status: String = row.get(EVENT_COLUMNS)?;
    let status = parsed::<Status>(EVENT_COLUMNS, &status)?;
    let (processed, completed) = (time(row, EVENT_COLUMNS + 2)?, time(row, EVENT_COLUMNS + 3)?);
    let error = row.get(EVENT_COLUMNS + 4)?;
    Ok(event(row, 0)?.with_progress(status, row.get(EVENT_COLUMNS + 1)?, processed, completed, error))
}

/// The id of an event, of a select that begins with it.
pub(crate) fn id(row: &Row<'_>) -> rusqlite::Result<EventId> {
    id_at(row, 0)
}

/// The id of an event in a column.
pub(crate) fn id_at(row: &Row<'_>, column: usize) -> rusqlite::Result<EventId> {
    parsed(column, &row.get::<_, String>(column)?)
}

/// A dead letter, of a select that begins with its event and goes on with what is told of it.
pub(crate) fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    const FIRST: usize = EVENT_COLUMNS + 5;
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

/// A row that somebody else has written, and not as we would.
fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
