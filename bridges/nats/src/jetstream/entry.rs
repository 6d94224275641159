//! An event as a message of the stream, and back.

use std::time::{Duration, SystemTime};

use eventbroker::{Event, EventId};

use crate::jetstream::message::Entry;
use crate::jetstream::names::{self, type_tokens};
use crate::provider::backend::Database;
use crate::transport::frame::{Block, Headers};
use crate::transport::publish_conn::Outgoing;

/// What the server knows a message again by.
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The headers of the original.
const EVENT_ID: &str = "Event-ID";
const EVENT_TYPE: &str = "Event-Type";
const EVENT_SOURCE: &str = "Event-Source";
const EVENT_STATUS: &str = "Event-Status";
const INSTANCE_ID: &str = "Instance-ID";

/// Writes an event as a message of the stream.
pub(crate) fn write_message(database: &Database, event: &Event, to: &mut Outgoing<'_>) {
    let (event_type, source) = (event.event_type().as_str(), event.source().as_str());
    let prefix = names::partition(database.prefix(), database.partition_of(event));
    let subject = format!("{prefix}.{source}.{}", type_tokens(event_type));
    let id = event.id().to_string();
    let mut headers = Block::default();
    headers.add(MESSAGE_ID, &id);
    headers.add(EVENT_ID, &id);
    headers.add(EVENT_TYPE, event_type);
    headers.add(EVENT_SOURCE, source);
    headers.add(EVENT_STATUS, "pending");
    headers.add(INSTANCE_ID, event.instance_id().unwrap_or_default());
    to.write(&subject, headers, &event.to_json());
}

/// And back, or what is wrong with it.
pub(crate) fn from_json(json: &[u8]) -> Result<Event, String> {
    Event::from_json(json).map_err(|error| error.to_string())
}

/// The event of a message of the stream.
pub(crate) fn event_of(prefix: &str, entry: &Entry) -> Option<Event> {
    if is_of_the_original(prefix, entry.subject.as_str()) {
        return None;
    }
    from_json(&entry.payload).ok()
}

/// Whether this is no event but what the original puts beside them: a status or a removal.
pub(crate) fn is_of_the_original(prefix: &str, subject: &str) -> bool {
    let second =
        subject.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).and_then(|it| it.split('.').next());
    matches!(second, Some("status" | "deleted"))
}

/// The id of the event of a message, without a look at what it holds.
pub(crate) fn id_of(headers: &Headers) -> Option<&str> {
    headers.get(MESSAGE_ID).or_else(|| headers.get(EVENT_ID))
}

/// Whether this bridge has published a message: then its id can be found.
pub(crate) fn is_ours(headers: &Headers) -> bool {
    headers.get(MESSAGE_ID).is_some()
}

/// When an event with this id was made, if the id tells: UUIDs of version 7 do.
pub(crate) fn time_of(id: &EventId) -> Option<SystemTime> {
    let text = id.to_string();
    let bytes = text.as_bytes();
    let is_seven = bytes.len() == 36 && [8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-') && bytes[14] == b'7';
    let hex: String = text.chars().filter(|it| *it != '-').take(12).collect();
    let millis = u64::from_str_radix(&hex, 16).ok().filter(|_| is_seven)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

/// How far two times lie apart.
pub(crate) fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}
