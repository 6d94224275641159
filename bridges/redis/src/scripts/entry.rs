//! An event as an entry of a stream, and back; and answers of scripts as what they mean.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use eventbroker::Event;
use eventbroker::provider::BackendError;
use jiff::Timestamp;
use redis::Value;
use xxhash_rust::xxh3::Xxh3;

/// An event as JSON.
pub(crate) fn to_json(event: &Event) -> String {
    String::from_utf8(event.to_json()).unwrap_or_default()
}

/// And back, or what is wrong with it.
pub(crate) fn from_json(text: &[u8]) -> Result<Event, String> {
    Event::from_json(text).map_err(|error| error.to_string())
}

/// What is known of when an event with this id was made, if the id tells: UUIDs of version 7 do.
pub(crate) fn made(id: &str) -> Option<Made> {
    let text = id.as_bytes();
    let is_seven = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text[*at] == b'-') && text[14] == b'7';
    let mut digits = text.iter().filter(|it| **it != b'-').map(|it| (*it as char).to_digit(16));
    let mut bytes = [0; 16];
    if !is_seven {
        return None;
    }
    for byte in bytes.iter_mut().rev() {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    let millis = bytes[10..].iter().rev().fold(0, |millis, byte| millis << 8 | u64::from(*byte));
    Some(Made { at: Duration::from_millis(millis), bytes })
}

/// See [`made`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) at: Duration,
    /// The id, last byte first: these differ most.
    pub(crate) bytes: [u8; 16],
}

impl Made {
    /// Which of the keys with known ids it is in: each holds those of 4 milliseconds.
    pub(crate) fn bucket(&self) -> u128 {
        self.at.as_millis() >> 2
    }
}

/// What stands for the content of an event: the same for two events whose content is the same.
pub(crate) fn content_of(event: &Event) -> [u8; 8] {
    let mut hasher = Xxh3::new();
    event.hash_content(&mut hasher);
    hasher.digest().to_be_bytes()
}

/// The time since 1970.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// What a script has answered that is not what it answers.
pub(crate) fn unexpected(value: &Value) -> BackendError {
    BackendError::Unavailable(format!("Redis: an answer is not as expected: {value:?}"))
}

pub(crate) fn list(value: Value) -> Result<Vec<Value>, BackendError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn bytes(value: Value) -> Result<Vec<u8>, BackendError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn text(value: Value) -> Result<String, BackendError> {
    String::from_utf8(bytes(value)?)
        .map_err(|error| BackendError::Unavailable(format!("Redis: a text is none: {error}")))
}

pub(crate) fn number(value: Value) -> Result<i64, BackendError> {
    match value {
        Value::Int(number) => Ok(number),
        other => text(other)?.parse().map_err(|_| BackendError::Unavailable("Redis: a number is none".to_owned())),
    }
}

pub(crate) fn texts(value: Value) -> Result<Vec<String>, BackendError> {
    list(value)?.into_iter().map(text).collect()
}

/// The fields of an entry.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// Entries as `XRANGE` gives them: the name of each, and its fields.
pub(crate) fn entries(value: Value) -> Result<Vec<(String, Fields)>, BackendError> {
    let entry = |value: Value| {
        let [name, fields] = <[Value; 2]>::try_from(list(value)?).map_err(|it| unexpected(&Value::Array(it)))?;
        let mut fields = list(fields)?.into_iter();
        let mut pairs = Vec::new();
        while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
            pairs.push((text(field)?, bytes(value)?));
        }
        Ok((text(name)?, pairs))
    };
    list(value)?.into_iter().map(entry).collect()
}

/// What makes an entry a [CloudEvent](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md) whose attributes are fields, beside
/// the `id`, `type` and `source` that each has: a name, its value, and so on. (`source` is a relative reference, `database`.)
pub(crate) fn cloud_event(event: &Event) -> Vec<Cow<'_, str>> {
    let time = Timestamp::try_from(event.created_at()).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut fields: Vec<Cow<'_, str>> =
        vec!["specversion".into(), "1.0".into(), "time".into(), time.to_string().into()];
    if let (Some(schema), Some(entity)) = (event.schema(), event.entity()) {
        fields.extend(["subject".into(), format!("{schema}.{entity}").into()]);
    }
    if let Some(key) = event.key() {
        fields.extend(["partitionkey".into(), key.into()]);
    }
    if !event.payload().is_null() {
        let data = event.payload().as_str().into();
        fields.extend(["datacontenttype".into(), "application/json".into(), "data".into(), data]);
    }
    fields
}

/// The event among the fields of an entry.
pub(crate) fn event_of(fields: &[(String, Vec<u8>)]) -> Result<Event, String> {
    let found = fields.iter().find(|(name, _)| name == "event");
    found.map_or_else(|| Err("it has no field `event`".to_owned()), |(_, text)| from_json(text))
}

/// A consumer group, as `XINFO GROUPS` tells of it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// The last entry that was delivered.
    pub(crate) last: String,
    pub(crate) pending: i64,
}

impl Group {
    pub(crate) fn all(answer: Value) -> Result<Vec<Self>, BackendError> {
        let group = |value: Value| {
            let mut group = Self { name: String::new(), last: String::new(), pending: 0 };
            let mut fields = list(value)?.into_iter();
            while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
                match text(field)?.as_str() {
                    "name" => group.name = text(value)?,
                    "last-delivered-id" => group.last = text(value)?,
                    "pending" => group.pending = number(value)?,
                    _ => {}
                }
            }
            Ok(group)
        };
        list(answer)?.into_iter().map(group).collect()
    }
}

/// The parts of an entry's name, which are ordered as it is.
pub(crate) fn parts(entry: &str) -> (u64, u64) {
    let (millis, number) = entry.split_once('-').unwrap_or((entry, "0"));
    (millis.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

pub(crate) fn earliest(one: String, other: String) -> String {
    if parts(&one) <= parts(&other) { one } else { other }
}

pub(crate) fn latest(one: String, other: String) -> String {
    if parts(&one) >= parts(&other) { one } else { other }
}
