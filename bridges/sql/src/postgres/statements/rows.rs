//! An event as a row of the table, and back.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use eventbroker::dead_letter::DeadLetter;
use eventbroker::provider::BackendError;
use eventbroker::{Event, EventId, Status};
use postgres::Row;
use postgres::types::ToSql;

use crate::columns::{Columns, Unreadable, errors, metadata_text};

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

/// The values of events, column by column, as `unnest` takes them.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    pub(crate) ids: Vec<String>,
    sources: Vec<&'a str>,
    types: Vec<&'a str>,
    payloads: Vec<Option<&'a str>>,
    user_ids: Vec<Option<i64>>,
    session_ids: Vec<Option<&'a str>>,
    instance_ids: Vec<Option<&'a str>>,
    schemas: Vec<Option<&'a str>>,
    entities: Vec<Option<&'a str>>,
    operations: Vec<Option<&'a str>>,
    created: Vec<SystemTime>,
    nanos: Vec<i16>,
    metadata: Vec<Option<String>>,
    keys: Vec<Option<&'a str>>,
}

impl<'a> Batch<'a> {
    fn push(&mut self, event: &'a Event) {
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

    /// The values of the statement `insert`.
    pub(crate) fn values(&'a self, origin: &'a Option<&str>) -> [&'a (dyn ToSql + Sync); 15] {
        [
            &self.ids,
            &self.sources,
            &self.types,
            &self.payloads,
            &self.user_ids,
            &self.session_ids,
            &self.instance_ids,
            &self.schemas,
            &self.entities,
            &self.operations,
            &self.created,
            &self.nanos,
            &self.metadata,
            &self.keys,
            origin,
        ]
    }
}

impl<'a> FromIterator<&'a Event> for Batch<'a> {
    fn from_iter<T: IntoIterator<Item = &'a Event>>(events: T) -> Self {
        let mut batch = Self::default();
        events.into_iter().for_each(|event| batch.push(event));
        batch
    }
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
