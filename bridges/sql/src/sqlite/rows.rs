//! An event as a row of the table, and back.

use std::str::FromStr;
use std::time::SystemTime;

use eventbroker::dead_letter::{AttemptError, DeadLetter};
use eventbroker::{Event, EventId, Source, Status};
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Error, Row, Statement, params_from_iter};
use serde_json::{Map, Value};

use crate::value::SqlValue;

/// The columns of an event in a select.
pub(super) const EVENT_COLUMNS: usize = 13;

/// A time as it stands in the table: RFC 3339 in UTC with nine digits, so that the order of the texts is that of the times.
pub(super) fn time_text(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.9}"))
}

/// An event as the values of the columns that `insert` names.
pub(super) fn values<'a>(event: &'a Event, origin: Option<&'a str>) -> [SqlValue<'a>; 14] {
    let metadata = event.metadata();
    let metadata = (!metadata.is_empty()).then(|| Value::from(metadata.clone()).to_string());
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
        metadata.map_or(SqlValue::Null, SqlValue::from),
        event.key().into(),
        origin.into(),
    ]
}

/// Inserts an event. False if its id is known.
pub(super) fn insert(statement: &mut Statement<'_>, event: &Event, origin: Option<&str>) -> rusqlite::Result<bool> {
    Ok(statement.execute(params_from_iter(values(event, origin)))? > 0)
}

/// Reads an event whose columns begin at `first`. How far its handling has come is not read.
pub(super) fn event(row: &Row<'_>, first: usize) -> rusqlite::Result<Event> {
    let text = |column: usize| row.get::<_, Option<String>>(first + column);
    let id: String = row.get(first)?;
    let source: String = row.get(first + 1)?;
    let source = parsed::<Source>(first + 1, &source)?;
    let event_type: String = row.get(first + 2)?;
    let mut builder = Event::builder(source, event_type)
        .id(id)
        .user_id(row.get::<_, Option<i64>>(first + 4)?.unwrap_or(0))
        .session_id(text(5)?.unwrap_or_default())
        .instance_id(text(6)?.unwrap_or_default())
        .schema(text(7)?.unwrap_or_default())
        .entity(text(8)?.unwrap_or_default())
        .operation(text(9)?.unwrap_or_default())
        .created_at(time(row, first + 10)?.unwrap_or(SystemTime::UNIX_EPOCH))
        .key(text(12)?.unwrap_or_default());
    if let Some(payload) = text(3)? {
        builder = builder.payload_json(payload);
    }
    if let Some(metadata) = text(11)? {
        let entries: Map<String, Value> =
            serde_json::from_str(&metadata).map_err(|error| unreadable(first + 11, error))?;
        for (name, value) in entries {
            builder = builder.metadata(name, value);
        }
    }
    builder.build().map_err(|error| unreadable(first, error.invalid().clone()))
}

/// Reads an event with its progress, of a select that begins with it.
pub(super) fn event_with_progress(row: &Row<'_>) -> rusqlite::Result<Event> {
    let status: String = row.get(EVENT_COLUMNS)?;
    let status = parsed::<Status>(EVENT_COLUMNS, &status)?;
    let (processed, completed) = (time(row, EVENT_COLUMNS + 2)?, time(row, EVENT_COLUMNS + 3)?);
    let error = row.get(EVENT_COLUMNS + 4)?;
    Ok(event(row, 0)?.with_progress(status, row.get(EVENT_COLUMNS + 1)?, processed, completed, error))
}

/// The id of an event, of a select that begins with it.
pub(super) fn id(row: &Row<'_>) -> rusqlite::Result<EventId> {
    id_at(row, 0)
}

/// The id of an event in a column.
pub(super) fn id_at(row: &Row<'_>, column: usize) -> rusqlite::Result<EventId> {
    parsed(column, &row.get::<_, String>(column)?)
}

/// A dead letter, of a select that begins with its event and goes on with what is told of it.
pub(super) fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    const FIRST: usize = EVENT_COLUMNS + 5;
    let reason: String = row.get(FIRST + 2)?;
    let name: String = row.get(FIRST + 1)?;
    let number = row.get::<_, i64>(FIRST)? as u64;
    let mut letter = DeadLetter::new(number, event_with_progress(row)?, name, parsed(FIRST + 2, &reason)?);
    letter.attempts = row.get(FIRST + 3)?;
    letter.dead_at = time(row, FIRST + 4)?.unwrap_or(SystemTime::UNIX_EPOCH);
    letter.errors = errors(FIRST + 5, &row.get::<_, String>(FIRST + 5)?)?;
    letter.first_failed_at = letter.errors.first().map_or(letter.dead_at, |first| first.at);
    letter.requeues = row.get(FIRST + 6)?;
    Ok(letter)
}

/// The errors of attempts as they stand in the table: `[{"attempt": 1, "at": TIME, "message": TEXT}]`.
pub(super) fn errors_text(errors: &[AttemptError]) -> String {
    let error = |error: &AttemptError| serde_json::json!({"attempt": error.attempt, "at": time_text(error.at), "message": error.message});
    Value::from_iter(errors.iter().map(error)).to_string()
}

fn errors(column: usize, text: &str) -> rusqlite::Result<Vec<AttemptError>> {
    let errors: Vec<Value> = serde_json::from_str(text).map_err(|error| unreadable(column, error))?;
    let error = |error: &Value| {
        let attempt = error["attempt"].as_u64().and_then(|attempt| attempt.try_into().ok()).unwrap_or(0);
        let at = parsed::<Timestamp>(column, error["at"].as_str().unwrap_or_default())?;
        Ok(AttemptError::new(attempt, at.into(), error["message"].as_str().unwrap_or_default()))
    };
    errors.iter().map(error).collect()
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<SystemTime>> {
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
