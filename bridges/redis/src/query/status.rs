//! Statuses of events: a script derives them from the consumer groups and the status hashes.

use std::time::{Duration, SystemTime};

use eventbroker::provider::BackendError;
use eventbroker::{Event, Status};

use crate::scripts::{Client, Located, READ_STATUSES};

/// The events with their statuses.
pub(super) fn with_statuses(client: &mut Client, found: Vec<Located>) -> Result<Vec<Event>, BackendError> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let texts: Vec<[String; 2]> =
        found.iter().map(|(number, _, event)| [event.id().to_string(), number.to_string()]).collect();
    let mut arguments: Vec<&str> = Vec::new();
    for ((_, entry, event), [id, number]) in found.iter().zip(&texts) {
        let instance = event.instance_id().unwrap_or_default();
        arguments.extend([entry, event.event_type().as_str(), id, instance, number]);
    }
    let answers: Vec<(String, i64, String, u64)> = client.run(&READ_STATUSES, &arguments)?;
    let with_status = |((_, _, event), (status, retries, error, ended)): (Located, (String, i64, String, u64))| {
        let status = status.parse().unwrap_or(Status::Pending);
        let completed = (ended > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(ended));
        let error = Some(error).filter(|error| !error.is_empty());
        event.with_progress(status, retries.try_into().unwrap_or(0), None, completed, error)
    };
    Ok(found.into_iter().zip(answers).map(with_status).collect())
}
