//! Statuses of events: a script derives them from the consumer groups and the status hashes.

use std::time::{Duration, SystemTime};

use eventbroker::provider::BackendError;
use eventbroker::{Event, Status};
use redis::Value;

use crate::scripts::{Client, Located, READ_STATUSES, list, number, text};

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
    let answers = list(client.run(&READ_STATUSES, &arguments)?)?;
    let mut events = Vec::with_capacity(found.len());
    for ((_, _, event), answer) in found.into_iter().zip(answers) {
        let mut answer = list(answer)?.into_iter();
        let mut next = || answer.next().unwrap_or(Value::Nil);
        let status: Status = text(next())?.parse().unwrap_or(Status::Pending);
        let retries = number(next())?.try_into().unwrap_or(0);
        let error = text(next()).ok().filter(|error| !error.is_empty());
        let ended = Duration::from_millis(number(next())?.unsigned_abs());
        let completed = (!ended.is_zero()).then(|| SystemTime::UNIX_EPOCH + ended);
        events.push(event.with_progress(status, retries, None, completed, error));
    }
    Ok(events)
}
