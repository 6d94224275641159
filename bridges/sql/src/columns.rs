//! An event as values of columns, and back, as far as both databases store it alike.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use eventbroker::dead_letter::{AttemptError, DeadLetter};
use eventbroker::stats::{StoreStats, SubscriptionLag};
use eventbroker::{Event, EventId, Status};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::value::SqlValue;

/// Why a row is not an event or a dead letter: another program has written or changed it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(String);

/// A row of a select, as both databases read it. `NULL` is `None`.
pub(crate) trait ReadRow {
    /// The number of columns of an event.
    const EVENT_COLUMNS: usize;
    /// The number of columns of an event and its progress.
    const PROGRESS_COLUMNS: usize = Self::EVENT_COLUMNS + 5;

    fn text(&self, column: usize) -> Result<Option<String>, Unreadable>;
    fn integer(&self, column: usize) -> Result<Option<i64>, Unreadable>;
    fn time(&self, column: usize) -> Result<Option<SystemTime>, Unreadable>;
    /// The time of an event whose columns begin at `first`, to the nanosecond.
    fn created_at(&self, first: usize) -> Result<Option<SystemTime>, Unreadable>;

    fn number<T: TryFrom<i64> + Default>(&self, column: usize) -> Result<T, Unreadable> {
        Ok(self.integer(column)?.and_then(|number| number.try_into().ok()).unwrap_or_default())
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&self, column: usize) -> Result<T, Unreadable> {
        self.text(column)?.unwrap_or_default().parse().map_err(Unreadable::new)
    }
}

/// Reads an event whose columns begin at `first`, without its progress.
pub(crate) fn event(row: &impl ReadRow, first: usize) -> Result<Event, Unreadable> {
    let text = |column: usize| row.text(first + column).map(Option::unwrap_or_default);
    let mut builder = Event::builder(row.parsed(first + 1)?, text(2)?)
        .id(text(0)?)
        .user_id(row.number(first + 4)?)
        .session_id(text(5)?)
        .instance_id(text(6)?)
        .schema(text(7)?)
        .entity(text(8)?)
        .operation(text(9)?)
        .created_at(row.created_at(first)?.unwrap_or(SystemTime::UNIX_EPOCH))
        .key(text(12)?);
    if let Some(payload) = row.text(first + 3)? {
        builder = builder.payload_json(payload);
    }
    if let Some(metadata) = row.text(first + 11)? {
        let entries: Map<String, Value> = serde_json::from_str(&metadata).map_err(Unreadable::new)?;
        for (name, value) in entries {
            builder = builder.metadata(name, value);
        }
    }
    builder.build().map_err(|error| Unreadable::new(error.invalid()))
}

/// Reads an event with its progress from a select that begins with `progress_columns`.
pub(crate) fn event_with_progress<R: ReadRow>(row: &R) -> Result<Event, Unreadable> {
    let first = R::EVENT_COLUMNS;
    let (status, retries) = (row.parsed(first)?, row.number(first + 1)?);
    let (processed, completed) = (row.time(first + 2)?, row.time(first + 3)?);
    Ok(event(row, 0)?.with_progress(status, retries, processed, completed, row.text(first + 4)?))
}

/// Reads the id of an event from a column.
pub(crate) fn id(row: &impl ReadRow, column: usize) -> Result<EventId, Unreadable> {
    row.parsed(column)
}

/// Reads a dead letter from a row of the statement `dead_letters`.
pub(crate) fn dead_letter<R: ReadRow>(row: &R) -> Result<DeadLetter, Unreadable> {
    let first = R::PROGRESS_COLUMNS;
    let (number, name) = (row.number(first)?, row.text(first + 1)?.unwrap_or_default());
    let mut letter = DeadLetter::new(number, event_with_progress(row)?, name, row.parsed(first + 2)?);
    letter.attempts = row.number(first + 3)?;
    letter.dead_at = row.time(first + 4)?.unwrap_or(SystemTime::UNIX_EPOCH);
    letter.errors = errors(&row.text(first + 5)?.unwrap_or_default())?;
    letter.first_failed_at = letter.errors.first().map_or(letter.dead_at, |first| first.at);
    letter.requeues = row.number(first + 6)?;
    Ok(letter)
}

/// Reads the lag of a subscription from a row of the statement `lag`.
pub(crate) fn lag(row: &impl ReadRow, oldest_ready: Option<SystemTime>) -> Result<SubscriptionLag, Unreadable> {
    let text = |column: usize| row.text(column).map(Option::unwrap_or_default);
    let mut lag = SubscriptionLag::default();
    (lag.group, lag.name, lag.pattern) = (text(0)?, text(1)?, text(3)?);
    lag.instance = row.text(2)?.filter(|instance| !instance.is_empty());
    (lag.ready, lag.leased, lag.dead) = (row.number(4)?, row.number(5)?, row.number(6)?);
    lag.oldest_ready = oldest_ready;
    Ok(lag)
}

/// The values of one row: the first columns of the table, from the id to the operation, and then `others`.
pub(crate) fn row_values<'a, const N: usize>(
    event: &'a Event,
    others: impl IntoIterator<Item = SqlValue<'a>>,
) -> [SqlValue<'a>; N] {
    let first = [
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
    ];
    let mut values = first.into_iter().chain(others);
    std::array::from_fn(|_| values.next().unwrap_or(SqlValue::Null))
}

/// The metadata of an event as a JSON object, or `NULL` if it has none.
pub(crate) fn metadata_text(event: &Event) -> Option<String> {
    let metadata = event.metadata();
    (!metadata.is_empty()).then(|| Value::from(metadata.clone()).to_string())
}

/// A time as text: RFC 3339 in UTC with nine digits, so that the order of the texts is that of the times.
pub(crate) fn time_text(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.9}"))
}

/// The errors of attempts as the table holds them: `[{"attempt": 1, "at": TIME, "message": TEXT}]`.
pub(crate) fn errors_text(errors: &[AttemptError]) -> String {
    let error = |error: &AttemptError| serde_json::json!({"attempt": error.attempt, "at": time_text(error.at), "message": error.message});
    Value::from_iter(errors.iter().map(error)).to_string()
}

/// Reads the errors of attempts.
fn errors(text: &str) -> Result<Vec<AttemptError>, Unreadable> {
    let errors: Vec<Value> = serde_json::from_str(text).map_err(Unreadable::new)?;
    let error = |error: &Value| {
        let attempt = error["attempt"].as_u64().and_then(|attempt| attempt.try_into().ok()).unwrap_or(0);
        let at: Timestamp = error["at"].as_str().unwrap_or_default().parse().map_err(Unreadable::new)?;
        Ok(AttemptError::new(attempt, at.into(), error["message"].as_str().unwrap_or_default()))
    };
    errors.iter().map(error).collect()
}

/// The counts of events by status.
pub(crate) fn store_stats(counts: impl IntoIterator<Item = (String, i64)>) -> StoreStats {
    let mut stats = StoreStats::default();
    for (status, count) in counts {
        let count = count as u64;
        stats.events += count;
        match status.parse() {
            Ok(Status::Pending) => stats.pending = count,
            Ok(Status::Processing) => stats.processing = count,
            Ok(Status::Completed) => stats.completed = count,
            Ok(Status::Failed) => stats.failed = count,
            Err(_) => {}
        }
    }
    stats
}

impl Unreadable {
    pub(crate) fn new(problem: impl fmt::Display) -> Self {
        Self(problem.to_string())
    }
}
