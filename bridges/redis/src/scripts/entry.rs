//! An event as an entry of a stream, and back.

use eventbroker::Event;
use xxhash_rust::xxh3::Xxh3;

pub(crate) fn to_json(event: &Event) -> String {
    String::from_utf8(event.to_json()).unwrap_or_default()
}

/// The event, or the reason why the text is none.
pub(crate) fn from_json(text: &[u8]) -> Result<Event, String> {
    Event::from_json(text).map_err(|error| error.to_string())
}

/// A hash of the content of an event. Two events with the same id and hash are duplicates.
pub(crate) fn content_hash(event: &Event) -> [u8; 8] {
    let mut hasher = Xxh3::new();
    event.hash_content(&mut hasher);
    hasher.digest().to_be_bytes()
}

/// The fields of an entry.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// An entry as `XRANGE` returns it: its id and its fields.
pub(crate) type Entry = (String, Fields);

/// The event among the fields of an entry.
pub(crate) fn event_of(fields: &[(String, Vec<u8>)]) -> Result<Event, String> {
    let found = fields.iter().find(|(name, _)| name == "event");
    found.map_or_else(|| Err("it has no field `event`".to_owned()), |(_, text)| from_json(text))
}

/// The two numbers of an entry's id. Entries are ordered by them.
pub(crate) fn id_parts(entry: &str) -> (u64, u64) {
    let (millis, number) = entry.split_once('-').unwrap_or((entry, "0"));
    (millis.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

pub(crate) fn earliest(one: String, other: String) -> String {
    if id_parts(&one) <= id_parts(&other) { one } else { other }
}

pub(crate) fn latest(one: String, other: String) -> String {
    if id_parts(&one) >= id_parts(&other) { one } else { other }
}
