//! From a CloudEvent to an event: maps the attributes to eventbroker JSON, which the library parses and validates.

use std::borrow::Cow;
use std::collections::HashMap;

use eventbroker::error::Invalid;
use eventbroker::{Event, Source};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{CE_BASE64, CE_CONTENT_TYPE, CE_SCHEMA, CE_SOURCE, CE_SUBJECT, NAMED, OWN, Subject, our_source};

/// Why a line is not an event: the field at fault, by its name in the line, and the problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The field, or `event` for the whole line.
    pub(crate) field: Cow<'static, str>,
    /// The problem, in words.
    pub(crate) problem: String,
}

impl Fault {
    pub(crate) fn new(field: impl Into<Cow<'static, str>>, problem: impl ToString) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }
}

impl From<Invalid> for Fault {
    fn from(Invalid { field, problem }: Invalid) -> Self {
        Self::new(field, problem)
    }
}

type Attributes<'a> = HashMap<String, &'a RawValue>;

/// The fields of eventbroker JSON that a CloudEvent can fill.
#[derive(Serialize)]
struct Fields<'a> {
    id: &'a RawValue,
    source: &'static str,
    #[serde(rename = "type")]
    event_type: &'a RawValue,
    status: Option<&'a RawValue>,
    retry_count: i64,
    error: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    user_id: i64,
    session_id: Option<&'a RawValue>,
    instance_id: Option<String>,
    schema: Option<Cow<'a, str>>,
    entity: Option<Cow<'a, str>>,
    operation: Option<&'a RawValue>,
    created_at: Cow<'a, str>,
    processed_at: Option<&'a RawValue>,
    completed_at: Option<&'a RawValue>,
    metadata: Map<String, Value>,
    key: Option<Cow<'a, str>>,
}

/// Decodes a CloudEvent; `None` if the line is not one: not a JSON object, or without `specversion`. An event with a
/// foreign `source` gets the source `foreign`, and one without `time` the current time.
pub(crate) fn decode(line: &[u8], foreign: Source) -> Option<Result<Event, Fault>> {
    let attributes: Attributes<'_> = serde_json::from_slice(line).ok()?;
    attributes.contains_key("specversion").then(|| read(&attributes, foreign))
}

fn read(attributes: &Attributes<'_>, foreign: Source) -> Result<Event, Fault> {
    let version = text(attributes, "specversion")?.unwrap_or_default();
    if version != "1.0" {
        return Err(Fault::new("specversion", format_args!("is {version:?}, only \"1.0\" is supported")));
    }
    let source = required_text(attributes, "source")?;
    required_text(attributes, "id")?;
    required_text(attributes, "type")?;

    let mut metadata = other_attributes(attributes)?;
    for (attribute, name) in [("datacontenttype", CE_CONTENT_TYPE), ("dataschema", CE_SCHEMA)] {
        if let Some(value) = text(attributes, attribute)? {
            metadata.insert(name.to_owned(), value.into());
        }
    }
    let (data, base64) = (present(attributes, "data"), text(attributes, "data_base64")?);
    if base64.is_some() {
        if data.is_some() {
            return Err(Fault::new("data_base64", "is present together with data, only one of the two is allowed"));
        }
        metadata.insert(CE_BASE64.to_owned(), true.into());
    }

    let ours = our_source(&source);
    let subject_text = text(attributes, "subject")?;
    let subject = subject_text.as_deref().map(Subject::parse).unwrap_or_default();
    let key = text(attributes, "partitionkey")?.or(subject.key.map(Cow::Borrowed));
    let schema = text(attributes, "ebschema")?.or(subject.schema.map(Cow::Borrowed));
    let entity = text(attributes, "ebentity")?.or(subject.entity.map(Cow::Borrowed));
    if let Some(subject) = &subject_text {
        let again = Subject { schema: schema.as_deref(), entity: entity.as_deref(), key: key.as_deref() }.text();
        if ours.is_none() || again.as_deref() != Some(subject) {
            metadata.insert(CE_SUBJECT.to_owned(), subject.as_ref().into());
        }
    }
    let (instance_id, event_source) = match ours {
        Some((instance, source)) => (Some(instance), source),
        None => {
            metadata.insert(CE_SOURCE.to_owned(), source.as_ref().into());
            let named = text(attributes, "ebsource")?.map(|name| name.parse()).transpose();
            let named = named.map_err(|Invalid { problem, .. }| Fault::new("ebsource", problem))?;
            (text(attributes, "ebinstance")?.map(Cow::into_owned), named.unwrap_or(foreign))
        }
    };

    let fields = Fields {
        id: attributes["id"],
        source: event_source.as_str(),
        event_type: attributes["type"],
        status: present(attributes, "ebstatus"),
        retry_count: number(attributes, "ebretrycount")?,
        error: present(attributes, "eberror"),
        payload: data.or_else(|| present(attributes, "data_base64")),
        user_id: number(attributes, "ebuserid")?,
        session_id: present(attributes, "ebsessionid"),
        instance_id,
        schema,
        entity,
        operation: present(attributes, "eboperation"),
        created_at: text(attributes, "time")?.unwrap_or_else(|| Timestamp::now().to_string().into()),
        processed_at: present(attributes, "ebprocessedat"),
        completed_at: present(attributes, "ebcompletedat"),
        metadata,
        key,
    };
    let json = serde_json::to_vec(&fields).map_err(|error| Fault::new("event", error))?;
    Event::from_json(&json).map_err(|invalid| renamed(invalid, attributes))
}

/// Collects the attributes without a field of their own as metadata.
fn other_attributes(attributes: &Attributes<'_>) -> Result<Map<String, Value>, Fault> {
    let mut metadata = Map::new();
    for (name, value) in attributes {
        let placed = NAMED.contains(&name.as_str()) || name == "data_base64" || own_field(name).is_some();
        if !placed && value.get() != "null" {
            let value = serde_json::from_str(value.get()).map_err(|error| Fault::new(name.clone(), error))?;
            metadata.insert(name.clone(), value);
        }
    }
    if let Some(json) = text(attributes, "ebmetadata")? {
        let more: Map<String, Value> = serde_json::from_str(&json).map_err(|error| Fault::new("ebmetadata", error))?;
        metadata.extend(more);
    }
    Ok(metadata)
}

/// The field that an `eb…` attribute carries.
fn own_field(attribute: &str) -> Option<&'static str> {
    OWN.iter().find(|(name, _)| *name == attribute).map(|(_, field)| *field)
}

/// An attribute that is present and not null.
fn present<'a>(attributes: &Attributes<'a>, name: &str) -> Option<&'a RawValue> {
    attributes.get(name).copied().filter(|value| value.get() != "null")
}

/// A string attribute; `None` if it is absent, null or empty.
fn text<'a>(attributes: &Attributes<'a>, name: &'static str) -> Result<Option<Cow<'a, str>>, Fault> {
    let Some(value) = present(attributes, name) else { return Ok(None) };
    let text: String = serde_json::from_str(value.get()).map_err(|_| Fault::new(name, "is not a string"))?;
    Ok(Some(Cow::<str>::Owned(text)).filter(|text| !text.is_empty()))
}

fn required_text<'a>(attributes: &Attributes<'a>, name: &'static str) -> Result<Cow<'a, str>, Fault> {
    text(attributes, name)?.ok_or_else(|| Fault::new(name, "is required"))
}

/// An integer attribute, 0 if absent. Also accepted as a string, since integers of CloudEvents have 32 bits.
fn number(attributes: &Attributes<'_>, name: &'static str) -> Result<i64, Fault> {
    let Some(value) = present(attributes, name) else { return Ok(0) };
    let digits = value.get().trim_matches('"');
    digits.parse().map_err(|_| Fault::new(name, "is not an integer of 64 bits"))
}

/// Replaces the name of an invalid field by that of the attribute it came from.
fn renamed(invalid: Invalid, attributes: &Attributes<'_>) -> Fault {
    let Invalid { field, problem } = invalid;
    let has = |name: &str| present(attributes, name).is_some();
    let own = OWN.iter().find(|(name, of)| *of == field && has(name)).map(|(name, _)| *name);
    let attribute = match field {
        "created_at" => "time",
        "payload" if has("data_base64") => "data_base64",
        "payload" => "data",
        "key" if has("partitionkey") => "partitionkey",
        "key" => "subject",
        "schema" | "entity" => own.unwrap_or("subject"),
        "instance_id" => own.unwrap_or("source"),
        field => own.unwrap_or(field),
    };
    Fault::new(attribute, problem)
}
