//! The form of an event in the stream: subject, headers and body.

use std::time::{Duration, SystemTime};

use eventbroker::{Event, EventId};
use eventbroker_bridge_kit::id_time::id_time;

use super::layout::Layout;
use super::message::StoredMessage;
use super::names::{self, type_tokens};
use crate::transport::Headers;

/// The header that the server recognizes duplicates by.
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The headers of the original, ResolveSpec's broker.
const EVENT_ID: &str = "Event-ID";
const EVENT_TYPE: &str = "Event-Type";
const EVENT_SOURCE: &str = "Event-Source";
const EVENT_STATUS: &str = "Event-Status";
const INSTANCE_ID: &str = "Instance-ID";

/// Writes an event: calls `put` with its subject, its headers and its body.
pub(crate) fn write(layout: &Layout, event: &Event, put: impl FnOnce(&str, &[(&str, &str)], &[u8])) {
    let (event_type, source) = (event.event_type().as_str(), event.source().as_str());
    let prefix = names::partition(&layout.prefix, layout.partition_of(event));
    let subject = format!("{prefix}.{source}.{}", type_tokens(event_type));
    let id = event.id().to_string();
    let headers = [
        (MESSAGE_ID, &*id),
        (EVENT_ID, &*id),
        (EVENT_TYPE, event_type),
        (EVENT_SOURCE, source),
        (EVENT_STATUS, "pending"),
        (INSTANCE_ID, event.instance_id().unwrap_or_default()),
    ];
    put(&subject, &headers, &event.to_json());
}

/// Reads an event from a body.
pub(crate) fn from_json(json: &[u8]) -> Result<Event, String> {
    Event::from_json(json).map_err(|error| error.to_string())
}

/// The event of a message; `None` for a mark of the original, or a body that is no event.
pub(crate) fn event_of(layout: &Layout, message: &StoredMessage) -> Option<Event> {
    if is_mark(layout, &message.subject) { None } else { from_json(&message.payload).ok() }
}

/// The sequence and the event of each message that has an event.
pub(crate) fn events_of(layout: &Layout, messages: Vec<StoredMessage>) -> Vec<(u64, Event)> {
    messages.into_iter().filter_map(|it| Some((it.sequence, event_of(layout, &it)?))).collect()
}

/// Whether a message is a mark that the original writes beside its events: a status or a removal.
pub(crate) fn is_mark(layout: &Layout, subject: &str) -> bool {
    let second = subject
        .strip_prefix(&*layout.prefix)
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|it| it.split('.').next());
    matches!(second, Some("status" | "deleted"))
}

/// The id of an event, from the headers of its message.
pub(crate) fn id_of(headers: &Headers) -> Option<&str> {
    headers.get(MESSAGE_ID).or_else(|| headers.get(EVENT_ID))
}

/// Whether this bridge published a message; it keeps every event findable by its id.
pub(crate) fn is_ours(headers: &Headers) -> bool {
    headers.get(MESSAGE_ID).is_some()
}

/// The time in an id, if it has one.
pub(crate) fn time_of(id: &EventId) -> Option<SystemTime> {
    id_time(&id.to_string()).and_then(|time| SystemTime::UNIX_EPOCH.checked_add(time.at))
}

/// The distance of two times.
pub(crate) fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Nats;

    const EVENT: &str = r#"{"id":"0198c5f2-7a00-7000-8000-000000000001","source":"system","type":"shop.orders.create","status":"pending","retry_count":0,"payload":{"total":12},"user_id":7,"session_id":"s","instance_id":"shop-1","schema":"shop","entity":"orders","operation":"create","created_at":"2026-01-02T03:04:05.000000006Z","metadata":{"trace":"t"},"key":"order-1"}"#;
    const HEADERS: [(&str, &str); 6] = [
        ("Nats-Msg-Id", "0198c5f2-7a00-7000-8000-000000000001"),
        ("Event-ID", "0198c5f2-7a00-7000-8000-000000000001"),
        ("Event-Type", "shop.orders.create"),
        ("Event-Source", "system"),
        ("Event-Status", "pending"),
        ("Instance-ID", "shop-1"),
    ];

    /// ResolveSpec's broker shares these bytes, and events that earlier versions stored have them.
    #[test]
    fn an_event_is_written_as_recorded() {
        let event = from_json(EVENT.as_bytes()).expect("an event");
        for (partitions, subject) in
            [(0, "events.system.shop.orders.create"), (8, "events-p.6.system.shop.orders.create")]
        {
            let layout = Layout::new(&Nats::new("nats://localhost").partitions(partitions));
            let mut written = None;
            write(&layout, &event, |subject, headers, body| {
                let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                written = Some((subject.to_owned(), headers, String::from_utf8_lossy(body).into_owned()));
            });
            let headers = HEADERS.map(|(name, value)| format!("{name}: {value}")).to_vec();
            assert_eq!(written, Some((subject.to_owned(), headers, EVENT.to_owned())));
        }
    }
}
