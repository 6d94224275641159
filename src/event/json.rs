//! The JSON of an event, for wires and tables. The names and the order of the fields are those of the event broker in
//! ResolveSpec, so that each reads the other's events. Decoding goes through the event's builder, which checks the
//! bounds.

use std::borrow::Cow;
use std::io::Write;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::id::UUID_TEXT_BYTES;
use super::metadata::parse_metadata;
use super::{Event, Invalid, Payload, Problem, Status};
use crate::base::system_time;

impl Event {
    /// Encodes the event as a JSON object without white space.
    /// The fields, in this order: `id`, `source`, `type`, `status`, `retry_count`, `error` (only if set), `payload`,
    /// `user_id` (0 if none), `session_id`, `instance_id`, `schema`, `entity`, `operation` (each `""` if none),
    /// `created_at`, `processed_at`, `completed_at` (RFC 3339 in UTC, to the nanosecond; the last two only if known),
    /// `metadata`, `key` (only if set).
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        self.sole_copy.end();
        encode(self)
    }

    /// Decodes an event from the JSON of [`to_json`](Event::to_json).
    ///
    /// Fields may be in any order, and unknown ones are ignored. All but `id`, `source` and `type` may be absent, null
    /// or `""`. Without `created_at` the event dates from the start of 1970. The bounds of
    /// [`EventBuilder`](crate::EventBuilder) apply.
    ///
    /// # Errors
    /// The field that was refused, and why; the field is `event` if the text is not a JSON object.
    pub fn from_json(json: &[u8]) -> Result<Self, Invalid> {
        decode(json)
    }
}

/// Serializes as [`Event::to_json`] does. Works only with `serde_json`, because the payload is raw JSON.
impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = String::from_utf8(self.to_json()).map_err(serde::ser::Error::custom)?;
        RawValue::from_string(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// Writes the fields one by one, because the payload is JSON already and is only copied.
fn encode(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + event.payload().len());
    write(&mut out, "{\"id\":", event.id().text(&mut [0; UUID_TEXT_BYTES]));
    write(&mut out, ",\"source\":", event.source().as_str());
    write(&mut out, ",\"type\":", event.event_type().as_str());
    write(&mut out, ",\"status\":", event.status().as_str());
    write(&mut out, ",\"retry_count\":", &event.retry_count());
    if let Some(error) = event.error() {
        write(&mut out, ",\"error\":", error);
    }
    out.extend_from_slice(b",\"payload\":");
    out.extend_from_slice(event.payload().as_bytes());
    write(&mut out, ",\"user_id\":", &event.user_id().unwrap_or(0));
    write(&mut out, ",\"session_id\":", event.session_id().unwrap_or(""));
    write(&mut out, ",\"instance_id\":", event.instance_id().unwrap_or(""));
    write(&mut out, ",\"schema\":", event.schema().unwrap_or(""));
    write(&mut out, ",\"entity\":", event.entity().unwrap_or(""));
    write(&mut out, ",\"operation\":", event.operation().unwrap_or(""));
    write_time(&mut out, ",\"created_at\":", event.created_nanos());
    if let Some(nanos) = event.processed_nanos() {
        write_time(&mut out, ",\"processed_at\":", nanos);
    }
    if let Some(nanos) = event.completed_nanos() {
        write_time(&mut out, ",\"completed_at\":", nanos);
    }
    write(&mut out, ",\"metadata\":", event.metadata());
    if let Some(key) = event.key() {
        write(&mut out, ",\"key\":", key);
    }
    out.push(b'}');
    out
}

fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, name: &str, value: &T) {
    out.extend_from_slice(name.as_bytes());
    serde_json::to_writer(out, value).expect("texts, numbers and JSON values can always be written to memory");
}

fn write_time(out: &mut Vec<u8>, name: &str, nanos: u64) {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).expect("the years 1970 to 2554 are in range");
    write!(out, "{name}\"{time}\"").expect("a time can always be written to memory");
}

/// The raw fields. Each is parsed by itself, so that an error can name its field. Nothing here recurses on any input.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    retry_count: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    session_id: Option<&'a RawValue>,
    #[serde(borrow)]
    instance_id: Option<&'a RawValue>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    #[serde(borrow)]
    entity: Option<&'a RawValue>,
    #[serde(borrow)]
    operation: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    processed_at: Option<&'a RawValue>,
    #[serde(borrow)]
    completed_at: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
}

fn decode(json: &[u8]) -> Result<Event, Invalid> {
    let json = std::str::from_utf8(json).map_err(|error| not_json("event", &error))?;
    // Serde would accept an array as the fields in their order.
    if !json.trim_start().starts_with('{') {
        return Err(not_json("event", &"an object is expected"));
    }
    let fields: Fields<'_> = serde_json::from_str(json).map_err(|error| not_json("event", &error))?;

    let source = required("source", fields.source)?.parse()?;
    let event_type = required("type", fields.event_type)?;
    let status = match &*text("status", fields.status)? {
        "" => Status::Pending,
        name => name.parse()?,
    };
    let mut builder = Event::builder(source, &*event_type)
        .id(&*required("id", fields.id)?)
        .user_id(number("user_id", fields.user_id)?)
        .session_id(text("session_id", fields.session_id)?)
        .instance_id(text("instance_id", fields.instance_id)?)
        .schema(text("schema", fields.schema)?)
        .entity(text("entity", fields.entity)?)
        .operation(text("operation", fields.operation)?)
        .created_at(system_time(time("created_at", fields.created_at)?.unwrap_or(0)))
        .key(text("key", fields.key)?);
    if let Some(payload) = fields.payload {
        builder = builder.payload_raw(Payload::from_checked_json(payload)?);
    }
    if let Some(metadata) = fields.metadata {
        for (key, value) in parse_metadata(metadata)? {
            builder = builder.metadata(key, value);
        }
    }
    let mut event = builder.build()?;

    let retry_count = number("retry_count", fields.retry_count)?;
    let processed = time("processed_at", fields.processed_at)?;
    let completed = time("completed_at", fields.completed_at)?;
    let error = text("error", fields.error)?;
    let tracked = processed.is_some() || completed.is_some() || !error.is_empty();
    if tracked || status != Status::Pending || retry_count != 0 {
        event.track(status, retry_count, processed, completed, Some(error.into_owned()));
    }
    Ok(event)
}

/// A string, `""` if the field is absent. Copied only if it has escapes.
fn text<'a>(field: &'static str, value: Option<&'a RawValue>) -> Result<Cow<'a, str>, Invalid> {
    let Some(value) = value else { return Ok(Cow::Borrowed("")) };
    let quoted = value.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match quoted {
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        Some(_) => serde_json::from_str(value.get()).map(Cow::Owned).map_err(|error| not_json(field, &error)),
        None => Err(out_of_bounds(field, "is not a text")),
    }
}

fn required<'a>(field: &'static str, value: Option<&'a RawValue>) -> Result<Cow<'a, str>, Invalid> {
    value.ok_or(Invalid::new(field, Problem::Missing)).and_then(|value| text(field, Some(value)))
}

/// A whole number, 0 if the field is absent.
fn number<T: Default + std::str::FromStr>(field: &'static str, value: Option<&RawValue>) -> Result<T, Invalid> {
    let Some(value) = value else { return Ok(T::default()) };
    value.get().parse().map_err(|_| {
        let bits = 8 * size_of::<T>();
        out_of_bounds(field, &format!("is not a whole number that fits in {bits} bits"))
    })
}

/// The start of the year 1, with which Go encodes an unset time.
const UNSET_SECONDS: i64 = -62_135_596_800;

/// A time in nanoseconds since 1970, `None` if it is unset.
fn time(field: &'static str, value: Option<&RawValue>) -> Result<Option<u64>, Invalid> {
    let text = text(field, value)?;
    if text.is_empty() {
        return Ok(None);
    }
    let time: Timestamp = text.parse().map_err(|_| out_of_bounds(field, "is not an RFC 3339 time"))?;
    if time.as_second() == UNSET_SECONDS {
        return Ok(None);
    }
    let nanos = u64::try_from(time.as_nanosecond());
    nanos.map(Some).map_err(|_| out_of_bounds(field, "is not between the years 1970 and 2554"))
}

fn not_json(field: &'static str, error: &dyn std::fmt::Display) -> Invalid {
    Invalid::new(field, Problem::NotJson(error.to_string()))
}

fn out_of_bounds(field: &'static str, message: &str) -> Invalid {
    Invalid::new(field, Problem::OutOfBounds(message.to_owned()))
}
