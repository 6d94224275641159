//! An event as values of columns, and back, as far as both databases store it alike.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use eventbroker::dead_letter::AttemptError;
use eventbroker::stats::StoreStats;
use eventbroker::{Event, Source, Status};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::value::SqlValue;

/// The columns of one event as they were read, without its progress.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) event_type: String,
    pub(crate) payload: Option<String>,
    pub(crate) user_id: Option<i64>,
    pub(crate) session_id: Option<String>,
    pub(crate) instance_id: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) entity: Option<String>,
    pub(crate) operation: Option<String>,
    pub(crate) created_at: SystemTime,
    pub(crate) metadata: Option<String>,
    pub(crate) key: Option<String>,
}

/// Why a row is not an event or a dead letter: another program has written or changed it.
#[derive(Debug)]
pub(crate) struct Unreadable(String);

impl Columns {
    pub(crate) fn into_event(self) -> Result<Event, Unreadable> {
        let source: Source = self.source.parse().map_err(Unreadable::new)?;
        let mut builder = Event::builder(source, self.event_type)
            .id(self.id)
            .user_id(self.user_id.unwrap_or(0))
            .session_id(self.session_id.unwrap_or_default())
            .instance_id(self.instance_id.unwrap_or_default())
            .schema(self.schema.unwrap_or_default())
            .entity(self.entity.unwrap_or_default())
            .operation(self.operation.unwrap_or_default())
            .created_at(self.created_at)
            .key(self.key.unwrap_or_default());
        if let Some(payload) = self.payload {
            builder = builder.payload_json(payload);
        }
        if let Some(metadata) = self.metadata {
            let entries: Map<String, Value> = serde_json::from_str(&metadata).map_err(Unreadable::new)?;
            for (name, value) in entries {
                builder = builder.metadata(name, value);
            }
        }
        builder.build().map_err(|error| Unreadable::new(error.invalid()))
    }
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
pub(crate) fn errors(text: &str) -> Result<Vec<AttemptError>, Unreadable> {
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

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unreadable {}
