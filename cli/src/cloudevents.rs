//! Events to and from CloudEvents 1.0 in structured JSON. This file holds the mapping shared by both directions;
//! reading is in `cloudevents/read.rs`, writing in `cloudevents/write.rs`. Nothing is lost in either direction:
//!
//! | attribute | event |
//! |---|---|
//! | `id`, `type`, `time`, `data` | id, type, created_at, payload |
//! | `source` `/eventbroker/INSTANCE/SOURCE` | instance_id (percent-encoded) and source |
//! | any other `source` | metadata `ce_source`; the event's source is `internal`, or that of `--source` |
//! | `subject` `SCHEMA.ENTITY/KEY` | schema, entity, key; the original in metadata `ce_subject` if not derivable |
//! | `partitionkey` | key; takes precedence over that of the subject |
//! | `datacontenttype`, `dataschema`, `data_base64` | metadata of that name with the prefix `ce_` |
//! | `eb…` (see [`OWN`]) | the other fields of an event |
//! | every other attribute | metadata of the same name |
//!
//! Metadata whose name or value is not allowed as an attribute goes into `ebmetadata`, a JSON object as text.

mod read;
mod write;

use eventbroker::Source;

pub(crate) use read::{Fault, decode};
pub(crate) use write::encode;

/// The extension attributes of eventbroker, and the fields of eventbroker JSON that they carry.
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
    // These two only beside a foreign `source`.
    ("ebsource", "source"),
    ("ebinstance", "instance_id"),
    ("ebmetadata", "metadata"),
];

/// The attributes named by the specification, and `partitionkey`, the one extension with a meaning here.
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

/// Parses a `source` of the form `/eventbroker/INSTANCE/SOURCE`; `None` for a foreign one.
fn our_source(uri: &str) -> Option<(String, Source)> {
    let (instance, source) = uri.strip_prefix("/eventbroker/")?.split_once('/')?;
    Some((percent_decode(instance)?, source.parse().ok()?))
}

/// Formats a `source` as `/eventbroker/INSTANCE/SOURCE`.
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

/// The parts of a `subject`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Subject<'a> {
    schema: Option<&'a str>,
    entity: Option<&'a str>,
    key: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// Parses `SCHEMA.ENTITY` or `SCHEMA.ENTITY/KEY`; any other form gives no parts.
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

    /// Formats the subject; `None` without a schema and an entity.
    fn text(self) -> Option<String> {
        let names = format!("{}.{}", self.schema?, self.entity?);
        Some(self.key.map_or(names.clone(), |key| format!("{names}/{key}")))
    }
}

#[cfg(test)]
mod tests;
