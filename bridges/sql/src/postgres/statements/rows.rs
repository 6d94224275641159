//! An event as a row of the table, and back.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use eventbroker::dead_letter::DeadLetter;
use eventbroker::{Event, EventId, Status};
use postgres::Row;

use crate::columns::{Columns, Unreadable, errors, metadata_text};

/// The columns that a select of an event names, in the order in which [`event`] reads them.
macro_rules! event_columns {
    () => {
        "e.id, e.source, e.type, e.payload::text, e.user_id, e.session_id, e.instance_id, e.schema, e.entity, e.operation, \
         e.created_at, e.created_nanos, e.metadata::text, e.key"
    };
}
/// The same, and how far its handling has come.
macro_rules! progress_columns {
    () => {
        concat!(
            crate::postgres::statements::rows::event_columns!(),
            ", e.status, e.retry_count, e.processed_at, e.completed_at, e.error"
        )
    };
}
pub(crate) use {event_columns, progress_columns};

/// So many columns have these two.
pub(crate) const EVENT_COLUMNS: usize = 14;
pub(crate) const PROGRESS_COLUMNS: usize = EVENT_COLUMNS + 5;

/// A time as PostgreSQL keeps it, and the nanoseconds that it leaves out.
pub(crate) fn split_time(time: SystemTime) -> (SystemTime, i16) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let rest = since.subsec_nanos() % 1_000;
    (SystemTime::UNIX_EPOCH + (since - Duration::from_nanos(rest.into())), rest as i16)
}

/// The values of events, column by column, as `unnest` takes them.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    pub(crate) ids: Vec<String>,
    pub(crate) sources: Vec<&'a str>,
    pub(crate) types: Vec<&'a str>,
    pub(crate) payloads: Vec<Option<&'a str>>,
    pub(crate) user_ids: Vec<Option<i64>>,
    pub(crate) session_ids: Vec<Option<&'a str>>,
    pub(crate) instance_ids: Vec<Option<&'a str>>,
    pub(crate) schemas: Vec<Option<&'a str>>,
    pub(crate) entities: Vec<Option<&'a str>>,
    pub(crate) operations: Vec<Option<&'a str>>,
    pub(crate) created: Vec<SystemTime>,
    pub(crate) nanos: Vec<i16>,
    pub(crate) metadata: Vec<Option<String>>,
    pub(crate) keys: Vec<Option<&'a str>>,
}

impl<'a> Batch<'a> {
    pub(crate) fn push(&mut self, event: &'a Event) {
        let (created, nanos) = split_time(event.created_at());
        self.ids.push(event.id().to_string());
        self.sources.push(event.source().as_str());
        self.types.push(event.event_type().as_str());
        self.payloads.push((!event.payload().is_null()).then(|| event.payload().as_str()));
        self.user_ids.push(event.user_id());
        self.session_ids.push(event.session_id());
        self.instance_ids.push(event.instance_id());
        self.schemas.push(event.schema());
        self.entities.push(event.entity());
        self.operations.push(event.operation());
        self.created.push(created);
        self.nanos.push(nanos);
        self.metadata.push(metadata_text(event));
        self.keys.push(event.key());
    }
}

/// A text for people, as PostgreSQL can hold it.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Reads an event whose columns begin at `first`. How far its handling has come is not read.
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

/// Reads an event with its progress, of a select that begins with it.
pub(crate) fn event_with_progress(row: &Row) -> Result<Event, Unreadable> {
    let status = parsed::<Status>(&get::<String>(row, EVENT_COLUMNS)?)?;
    let retries: i32 = get(row, EVENT_COLUMNS + 1)?;
    let (processed, completed) = (get(row, EVENT_COLUMNS + 2)?, get(row, EVENT_COLUMNS + 3)?);
    let error = get(row, EVENT_COLUMNS + 4)?;
    Ok(event(row, 0)?.with_progress(status, retries.try_into().unwrap_or(0), processed, completed, error))
}

/// The id of an event in a column.
pub(crate) fn id(row: &Row, column: usize) -> Result<EventId, Unreadable> {
    parsed(&get::<String>(row, column)?)
}

/// A dead letter, of a select that begins with its event and goes on with what is told of it.
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

fn get<'a, T: postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Unreadable> {
    row.try_get(column).map_err(Unreadable::new)
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Unreadable> {
    text.parse().map_err(Unreadable::new)
}
