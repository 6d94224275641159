//! Messages of a stream: published with their answers awaited together, read and removed one by one.

use std::time::{Duration, SystemTime};

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, Subject};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::api::{self, ApiError, NO_RESPONDERS, Result, STREAM_NOT_FOUND, unavailable};
use super::leader;
use crate::transport::{Headers, Session};

const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The stream has reached its limit of messages or bytes.
const STREAM_FULL: u64 = 10_077;
/// The message is larger than the stream accepts.
const MESSAGE_TOO_LARGE: u64 = 10_054;

/// A message to publish.
#[derive(Debug, Clone)]
pub(crate) struct NewMessage {
    subject: Subject,
    headers: HeaderMap,
    payload: Bytes,
}

impl NewMessage {
    pub(crate) fn new(subject: String, payload: impl Into<Bytes>) -> Self {
        Self { subject: subject.into(), headers: HeaderMap::new(), payload: payload.into() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Result<Self> {
        self.headers.insert(HeaderName::from_static(name), value.parse::<HeaderValue>().map_err(unavailable)?);
        Ok(self)
    }

    /// Stored only if the last message of the subject has this sequence; 0 stands for none.
    pub(crate) fn behind(self, last: u64) -> Result<Self> {
        self.with("Nats-Expected-Last-Subject-Sequence", &last.to_string())
    }
}

/// The server's answer to a publish. An answer of another form is an error: a program that is no JetStream may listen on the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublishAnswer {
    /// Stored with this sequence.
    New(u64),
    /// Stored before with this sequence, within the stream's `duplicate_window`. Later the server stores it again.
    Duplicate(u64),
    /// Another message is the last of the subject.
    WrongLast,
    /// The stream is full.
    Full,
    /// The stream or the server accepts no message of this size.
    TooLarge(String),
}

impl PublishAnswer {
    /// The answer to a publish, from its status and its body.
    pub(crate) fn read(status: Option<u16>, payload: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            stream: Option<&'a str>,
            seq: Option<u64>,
            #[serde(default)]
            duplicate: bool,
            error: Option<ApiError>,
        }
        if status == Some(NO_RESPONDERS) {
            return Err(unavailable("no stream has the subject, or the stream has no leader"));
        }
        let answer: Answer<'_> = serde_json::from_slice(payload).map_err(unavailable)?;
        match answer.error {
            None => match (answer.stream, answer.seq) {
                (Some(_), Some(sequence)) if answer.duplicate => Ok(Self::Duplicate(sequence)),
                (Some(_), Some(sequence)) => Ok(Self::New(sequence)),
                _ => Err(unavailable("the answer to a publish is none of JetStream")),
            },
            Some(error) => match error.code {
                WRONG_LAST_SEQUENCE => Ok(Self::WrongLast),
                STREAM_FULL => Ok(Self::Full),
                MESSAGE_TOO_LARGE => Ok(Self::TooLarge(error.text)),
                _ => Err(error.into()),
            },
        }
    }

    pub(crate) fn larger_than(limit: usize) -> Self {
        Self::TooLarge(format!("it is larger than the server takes ({limit} bytes)"))
    }

    /// The sequence of a message of the bridge's own stream.
    pub(crate) fn sequence(self) -> Result<u64> {
        match self {
            Self::New(sequence) | Self::Duplicate(sequence) => Ok(sequence),
            Self::Full => Err(unavailable("the stream of the bridge's state is full")),
            Self::WrongLast => Err(unavailable("another member was faster")),
            Self::TooLarge(reason) => Err(unavailable(reason)),
        }
    }
}

/// Publishes messages in their order, and waits until each is stored or refused.
pub(crate) async fn publish_all(session: &Session, messages: Vec<NewMessage>) -> Result<Vec<PublishAnswer>> {
    let requests = messages.into_iter().map(|it| (it.subject, Some(it.headers), it.payload));
    let limit = session.max_payload();
    let read = |answer: Option<Message>| match answer {
        Some(answer) => PublishAnswer::read(answer.status.map(|it| it.as_u16()), &answer.payload),
        None => Ok(PublishAnswer::larger_than(limit)),
    };
    session.ask_all(requests, true).await?.into_iter().map(read).collect()
}

/// Publishes one message, and waits until it is stored or refused.
pub(crate) async fn publish(session: &Session, message: NewMessage) -> Result<PublishAnswer> {
    publish_all(session, vec![message]).await?.pop().ok_or_else(api::cut_off)
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub(crate) struct StoredMessage {
    pub(crate) sequence: u64,
    pub(crate) stored_at: SystemTime,
    pub(crate) subject: Subject,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

/// A request for one message of a stream.
#[derive(Debug, Clone)]
pub(crate) enum Get {
    /// The message with this sequence.
    Sequence(u64),
    /// The last message on this subject.
    Last(String),
    /// The first message with this sequence or a higher one, on a subject that matches.
    Next(String, u64),
}

/// Reads messages of a stream, in the order of the requests. A replicated stream is read at its leader.
pub(crate) async fn get_all(session: &Session, stream: &str, gets: &[Get]) -> Result<Vec<Option<StoredMessage>>> {
    if session.is_replicated() {
        return leader::get_all(session, stream, gets).await;
    }
    let request = |get: &Get| {
        let (subject, request) = match get {
            Get::Last(subject) => return (format!("$JS.API.DIRECT.GET.{stream}.{subject}").into(), None, Bytes::new()),
            Get::Sequence(sequence) => (format!("$JS.API.DIRECT.GET.{stream}"), json!({ "seq": sequence })),
            Get::Next(filter, from) => {
                (format!("$JS.API.DIRECT.GET.{stream}"), json!({ "seq": from, "next_by_subj": filter }))
            }
        };
        (subject.into(), None, request.to_string().into())
    };
    let read = |answer: Option<Message>| {
        let message = answer.ok_or_else(|| unavailable("a request is too large"))?;
        match message.status.map(|status| status.as_u16()) {
            None => direct(message).map(Some),
            Some(404) => Ok(None),
            Some(NO_RESPONDERS) => Err(unavailable(format!("the stream {stream} does not exist"))),
            Some(_) => Err(unavailable(message.description.unwrap_or_default())),
        }
    };
    session.ask_all(gets.iter().map(request), true).await?.into_iter().map(read).collect()
}

/// Reads one message of a stream.
pub(crate) async fn get(session: &Session, stream: &str, get: Get) -> Result<Option<StoredMessage>> {
    Ok(get_all(session, stream, &[get]).await?.pop().flatten())
}

fn direct(message: Message) -> Result<StoredMessage> {
    let headers = message.headers.map(Headers::from).unwrap_or_default();
    let sequence = headers.get("Nats-Sequence").and_then(|it| it.parse().ok());
    let stored_at = headers.get("Nats-Time-Stamp").and_then(|it| it.parse::<Timestamp>().ok());
    let subject = headers.get("Nats-Subject").map(Subject::from);
    let (Some(sequence), Some(stored_at), Some(subject)) = (sequence, stored_at, subject) else {
        return Err(unavailable("a message of a stream lacks a header of the server"));
    };
    Ok(StoredMessage { sequence, stored_at: stored_at.into(), subject, headers, payload: message.payload })
}

/// Removes a message. False if it did not exist.
pub(crate) async fn delete(session: &Session, stream: &str, sequence: u64) -> Result<bool> {
    let request = json!({ "seq": sequence, "no_erase": true });
    match api::api(session, &format!("STREAM.MSG.DELETE.{stream}"), &request).await? {
        Ok(answer) => Ok(answer["success"].as_bool().unwrap_or(false)),
        Err(error) if error.code == STREAM_NOT_FOUND => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// The facts about a delivery, from the reply subject of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeliveryInfo {
    pub(crate) sequence: u64,
    /// The number of deliveries of the message, with this one.
    pub(crate) times_delivered: u64,
    /// The number of this delivery among all of the consumer.
    pub(crate) number: u64,
    pub(crate) stored_at: SystemTime,
    /// The number of messages behind it.
    pub(crate) left: u64,
}

impl DeliveryInfo {
    /// Reads `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.DELIVERY.TIME.LEFT`, or the form with a domain and an account before the stream.
    pub(crate) fn of(reply: &str) -> Option<Self> {
        let tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let others = if reply.bytes().filter(|byte| *byte == b'.').count() >= 10 { 4 } else { 2 };
        let mut tokens = tokens.skip(others);
        let mut number = || tokens.next()?.parse::<u64>().ok();
        let (times_delivered, sequence, delivery) = (number()?, number()?, number()?);
        let stored_at = SystemTime::UNIX_EPOCH + Duration::from_nanos(number()?);
        Some(Self { sequence, times_delivered, number: delivery, stored_at, left: number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_jetstream_confirms() {
        let read = |answer: &str| PublishAnswer::read(None, answer.as_bytes());
        assert_eq!(read(r#"{"stream":"EVENTS","seq":7}"#).expect("it is stored"), PublishAnswer::New(7));
        let duplicate = read(r#"{"stream":"EVENTS","domain":"hub","seq":7,"duplicate":true}"#);
        assert_eq!(duplicate.expect("it was stored before"), PublishAnswer::Duplicate(7));
        for other in ["{}", r#"{"seq":7}"#, r#"{"stream":"EVENTS"}"#, r#"{"ok":true}"#, "7", "OK", ""] {
            assert!(read(other).is_err(), "{other} is no confirmation");
        }
        let full =
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"E","seq":0}"#;
        assert_eq!(read(full).expect("it is an answer"), PublishAnswer::Full);
    }
}
