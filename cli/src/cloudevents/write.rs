//! From an event to a CloudEvent.

use std::time::SystemTime;

use eventbroker::{Event, Source, Status};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{CE_BASE64, CE_CONTENT_TYPE, CE_SCHEMA, CE_SOURCE, CE_SUBJECT, NAMED, Subject, our_source, source_uri};

/// Encodes an event as a CloudEvent: one JSON object without white space.
pub(crate) fn encode(event: &Event) -> Vec<u8> {
    let mut metadata = event.metadata().clone();
    let mut out = Vec::with_capacity(512 + event.payload().len());
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    put(&mut out, "id", &event.id().to_string());
    let foreign = take_text(&mut metadata, CE_SOURCE, |uri| our_source(uri).is_none());
    let instance = event.instance_id().unwrap_or("");
    match &foreign {
        Some(uri) => put(&mut out, "source", uri),
        None => put(&mut out, "source", &source_uri(instance, event.source())),
    }
    put(&mut out, "type", event.event_type().as_str());
    put_subject(&mut out, event, foreign.is_some(), &mut metadata);
    put_time(&mut out, "time", Some(event.created_at()));
    put_text(&mut out, "partitionkey", event.key());
    put_text(&mut out, "datacontenttype", take_text(&mut metadata, CE_CONTENT_TYPE, |_| true).as_deref());
    put_text(&mut out, "dataschema", take_text(&mut metadata, CE_SCHEMA, |_| true).as_deref());

    if foreign.is_some() {
        put_text(&mut out, "ebinstance", event.instance_id());
        if event.source() != Source::Internal {
            put(&mut out, "ebsource", event.source().as_str());
        }
    }
    if event.status() != Status::Pending {
        put(&mut out, "ebstatus", event.status().as_str());
    }
    if event.retry_count() != 0 {
        put(&mut out, "ebretrycount", &event.retry_count().to_string());
    }
    put_text(&mut out, "eberror", event.error());
    put_text(&mut out, "ebuserid", event.user_id().map(|id| id.to_string()).as_deref());
    put_text(&mut out, "ebsessionid", event.session_id());
    put_time(&mut out, "ebprocessedat", event.processed_at());
    put_time(&mut out, "ebcompletedat", event.completed_at());

    let is_base64 = event.payload().as_str().starts_with('"') && metadata.get(CE_BASE64) == Some(&Value::Bool(true));
    if is_base64 {
        metadata.remove(CE_BASE64);
    }
    put_metadata(&mut out, metadata);
    if !event.payload().is_null() {
        out.extend_from_slice(if is_base64 { b",\"data_base64\":" } else { b",\"data\":" });
        out.extend_from_slice(event.payload().as_bytes());
    }
    out.push(b'}');
    out
}

/// Writes the subject, and `ebschema`, `ebentity`, `eboperation` where reading would not derive them.
fn put_subject(out: &mut Vec<u8>, event: &Event, is_foreign: bool, metadata: &mut Map<String, Value>) {
    let whole = Subject { schema: event.schema(), entity: event.entity(), key: event.key() };
    let may_stand = |subject: &str| {
        // `eb…` attributes can override a part of the subject but not remove it, so the event must have every part.
        let said = Subject::parse(subject);
        (said.schema.is_none() || whole.schema.is_some())
            && (said.entity.is_none() || whole.entity.is_some())
            && (said.key.is_none() || whole.key.is_some())
    };
    let made = whole.text().filter(|subject| !is_foreign && Subject::parse(subject) == whole);
    // A `ce_subject` equal to the derived subject stays in the metadata, or reading would drop it.
    let as_it_came = take_text(metadata, CE_SUBJECT, |subject| may_stand(subject) && made.as_deref() != Some(subject));
    let subject = as_it_came.or(made);
    put_text(out, "subject", subject.as_deref());

    let said = subject.as_deref().map(Subject::parse).unwrap_or_default();
    let mut of_type = segments_of_three(event).map_or([None; 3], |names| names.map(Some));
    of_type[0] = said.schema.or(of_type[0]);
    of_type[1] = said.entity.or(of_type[1]);
    let names = [("ebschema", event.schema()), ("ebentity", event.entity()), ("eboperation", event.operation())];
    for ((attribute, name), read) in names.into_iter().zip(of_type) {
        put_text(out, attribute, name.filter(|_| name != read));
    }
}

fn segments_of_three(event: &Event) -> Option<[&str; 3]> {
    let mut segments = event.event_type().segments();
    let three = [segments.next()?, segments.next()?, segments.next()?];
    segments.next().is_none().then_some(three)
}

/// Writes each entry as an attribute if the specification allows it, the others together in `ebmetadata`.
fn put_metadata(out: &mut Vec<u8>, metadata: Map<String, Value>) {
    let mut rest = Map::new();
    for (name, value) in metadata {
        if is_attribute(&name, &value) {
            put(out, &name, &value);
        } else {
            rest.insert(name, value);
        }
    }
    if !rest.is_empty() {
        put(out, "ebmetadata", &Value::Object(rest).to_string());
    }
}

/// Whether the specification allows an entry as an extension attribute, and reading returns it as metadata.
fn is_attribute(name: &str, value: &Value) -> bool {
    let may_be_named = (1..=20).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && !name.starts_with("eb")
        && !NAMED.contains(&name);
    may_be_named
        && match value {
            Value::Bool(_) => true,
            Value::Number(number) => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            Value::String(text) => !text.is_empty() && !text.contains(char::is_control),
            _ => false,
        }
}

/// Removes and returns an entry of the metadata if it is a string that is valid as an attribute.
fn take_text(metadata: &mut Map<String, Value>, name: &str, may_stand: impl Fn(&str) -> bool) -> Option<String> {
    let text = metadata.get(name)?.as_str()?;
    if text.is_empty() || text.contains(char::is_control) || !may_stand(text) {
        return None;
    }
    metadata.remove(name).and_then(|value| value.as_str().map(str::to_owned))
}

fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, name: &str, value: &T) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    serde_json::to_writer(out, value).expect("texts and JSON values can always be written to memory");
}

fn put_text(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        put(out, name, value);
    }
}

fn put_time(out: &mut Vec<u8>, name: &str, time: Option<SystemTime>) {
    if let Some(time) = time {
        let time = Timestamp::try_from(time).expect("the years 1970 to 2554 are in range");
        put(out, name, &time.to_string());
    }
}
