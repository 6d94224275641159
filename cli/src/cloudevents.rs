//! CloudEvents 1.0 in structured JSON, and back. What both directions share is here; reading is in `cloudevents/read.rs`,
//! writing in `cloudevents/write.rs`. Nothing is lost in either direction:
//!
//! | attribute | event |
//! |---|---|
//! | `id`, `type`, `time`, `data` | id, type, created_at, payload |
//! | `source` `/eventbroker/INSTANCE/SOURCE` | instance_id (percent-encoded) and source |
//! | any other `source` | metadata `ce_source`; the event's source is `internal` unless another is asked for |
//! | `subject` `SCHEMA.ENTITY/KEY` | schema, entity, key; as it came in metadata `ce_subject` if it could not be made again |
//! | `partitionkey` | key, before that of the subject |
//! | `datacontenttype`, `dataschema`, `data_base64` | metadata `ce_datacontenttype`, `ce_dataschema`, `ce_data_base64` |
//! | `eb…` (see [`OWN`]) | what else an event has |
//! | every other attribute | metadata of its name |
//!
//! Metadata whose name or value is not allowed as an attribute goes into `ebmetadata`, a JSON object as text.

mod read;
mod write;

use eventbroker::Source;

pub(crate) use read::{Fault, decode};
pub(crate) use write::encode;

/// Our own extension attributes, and the fields of our JSON that they carry.
const OWN: &[(&str, &str)] = &[
    ("ebstatus", "status"),
    ("ebretrycount", "retry_count"),
    ("eberror", "error"),
    ("ebuserid", "user_id"),
    ("ebsessionid", "session_id"),
    ("ebschema", "schema"),
    ("ebentity", "entity"),
    ("eboperation", "operation"),
    ("ebprocessedat", "processed_at"),
    ("ebcompletedat", "completed_at"),
    // These two only with a source that is not of our form.
    ("ebsource", "source"),
    ("ebinstance", "instance_id"),
    ("ebmetadata", "metadata"),
];

/// The attributes that the specification names, and the one extension that we give a meaning.
const NAMED: &[&str] = &[
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "partitionkey",
];

const CE_SOURCE: &str = "ce_source";
const CE_SUBJECT: &str = "ce_subject";
const CE_CONTENT_TYPE: &str = "ce_datacontenttype";
const CE_SCHEMA: &str = "ce_dataschema";
const CE_BASE64: &str = "ce_data_base64";

/// Instance and source, if a CloudEvents `source` is of our form.
fn our_source(uri: &str) -> Option<(String, Source)> {
    let (instance, source) = uri.strip_prefix("/eventbroker/")?.split_once('/')?;
    Some((percent_decode(instance)?, source.parse().ok()?))
}

/// A CloudEvents `source` of our form.
fn source_uri(instance: &str, source: Source) -> String {
    let mut uri = String::from("/eventbroker/");
    for byte in instance.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push('/');
    uri.push_str(source.as_str());
    uri
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        rest = after;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// What a `subject` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Subject<'a> {
    schema: Option<&'a str>,
    entity: Option<&'a str>,
    key: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// Reads `SCHEMA.ENTITY` or `SCHEMA.ENTITY/KEY`; of any other form it says nothing.
    fn parse(subject: &'a str) -> Self {
        let (names, key) = match subject.split_once('/') {
            Some((names, key)) => (names, Some(key)),
            None => (subject, None),
        };
        match names.rsplit_once('.') {
            Some((schema, entity)) if !schema.is_empty() && !entity.is_empty() && key != Some("") => {
                Self { schema: Some(schema), entity: Some(entity), key }
            }
            _ => Self::default(),
        }
    }

    /// Writes it; only what has a schema and an entity can be written.
    fn text(self) -> Option<String> {
        let names = format!("{}.{}", self.schema?, self.entity?);
        Some(self.key.map_or(names.clone(), |key| format!("{names}/{key}")))
    }
}

#[cfg(test)]
mod tests;
