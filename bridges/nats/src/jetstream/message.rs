//! JetStream as this bridge uses it: requests of its API, publishes and acknowledgements of which many are under way at once, and single
//! messages of a stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use eventbroker::provider::BackendError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::jetstream::leader;
use crate::transport::frame::Headers;
use crate::transport::request_mux::{Answer, Answers};
use crate::transport::runtime::Session;

/// Codes of the server's errors.
pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
pub(crate) const CONSUMER_NOT_FOUND: u64 = 10_014;
const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The stream has reached its bound of messages or bytes.
const STREAM_FULL: u64 = 10_077;
/// A message is larger than the stream takes.
const MESSAGE_TOO_LARGE: u64 = 10_054;
/// The status of an answer that nobody but the server has given.
const NO_RESPONDERS: u16 = 503;

/// Why the API has refused.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) code: u64,
    pub(crate) text: String,
}

impl From<ApiError> for BackendError {
    fn from(error: ApiError) -> Self {
        Self::Unavailable(format!("NATS: {} ({})", error.text, error.code))
    }
}

/// What a failure of the client means.
pub(crate) fn unavailable(error: impl std::fmt::Display) -> BackendError {
    BackendError::Unavailable(format!("NATS: {error}"))
}

/// Whatever comes while the connection ends.
pub(crate) fn cut_off() -> BackendError {
    BackendError::Unavailable("NATS: the connection was lost".to_owned())
}

/// The next answer to what was asked. One that does not come ends the connection, also of a call that may take long as a whole.
async fn next_of(session: &Session, answers: &mut Answers) -> Result<Answer, BackendError> {
    in_time(session, answers.next()).await?.ok_or_else(cut_off)
}

/// What is waited for, if it comes in time.
async fn in_time<T>(session: &Session, answer: impl Future<Output = T>) -> Result<T, BackendError> {
    match Session::in_time(answer).await {
        Some(answer) => Ok(answer),
        None => {
            session.give_up("an answer has not come");
            Err(unavailable("there was no answer in time"))
        }
    }
}

/// A request of the API, and its answer.
pub(crate) async fn api(
    session: &Session,
    verb: &str,
    request: &Value,
) -> Result<Result<Value, ApiError>, BackendError> {
    let payload = if request.is_null() { String::new() } else { request.to_string() };
    let answer = session.tap.ask(&format!("$JS.API.{verb}"), payload.as_bytes());
    session.tap.send().map_err(unavailable)?;
    let answer = Session::in_time(answer).await.ok_or_else(|| unavailable("there was no answer in time"))?;
    let answer = answer.map_err(|_| cut_off())?;
    if answer.headers.status() == Some(NO_RESPONDERS) {
        return Err(unavailable("JetStream is not enabled on the server"));
    }
    let mut answer: Value = serde_json::from_slice(&answer.payload).map_err(unavailable)?;
    Ok(match answer.get_mut("error").map(Value::take) {
        Some(error) => Err(ApiError {
            code: error["err_code"].as_u64().unwrap_or(0),
            text: error["description"].as_str().unwrap_or("refused").to_owned(),
        }),
        None => Ok(answer),
    })
}

/// A message to publish.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) subject: Subject,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// What the server has said to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is stored with this number.
    New(u64),
    /// It was stored before, with this number.
    Known(u64),
    /// Another message is the last of its subject.
    Overtaken,
    /// The stream is full.
    Full,
    /// The stream, or the client, does not take it, and never will.
    TooLarge(String),
}

#[derive(serde::Deserialize)]
struct PublishAnswer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<PublishError>,
}

#[derive(serde::Deserialize)]
struct PublishError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Publishes messages in their order, and waits until each is stored or refused.
pub(crate) async fn publish_all(session: &Session, messages: Vec<Outgoing>) -> Result<Vec<Stored>, BackendError> {
    let mut answers = session.router.call();
    let (mut stored, mut open) = (vec![None; messages.len()], 0);
    for (number, Outgoing { subject, headers, payload }) in messages.into_iter().enumerate() {
        let address = answers.address(number);
        match session.client.publish_with_reply_and_headers(subject, address, headers, payload).await {
            Ok(()) => open += 1,
            Err(error) if error.kind() == async_nats::client::PublishErrorKind::MaxPayloadExceeded => {
                let most = session.client.max_payload();
                let reason = format!("it is larger than the server takes ({most} bytes)");
                stored[number] = Some(Stored::TooLarge(reason));
            }
            Err(error) => return Err(unavailable(error)),
        }
    }
    while open > 0 {
        let (number, message) = next_of(session, &mut answers).await?;
        open -= 1;
        stored[number] = Some(read_answer(message.status.map(|it| it.as_u16()), &message.payload)?);
    }
    Ok(stored.into_iter().flatten().collect())
}

/// What the server has answered to a publish.
pub(crate) fn read_answer(status: Option<u16>, payload: &[u8]) -> Result<Stored, BackendError> {
    if status == Some(NO_RESPONDERS) {
        return Err(unavailable("there is no stream for the subject, or nobody leads it"));
    }
    let answer: PublishAnswer = serde_json::from_slice(payload).map_err(unavailable)?;
    match answer.error {
        None if answer.duplicate => Ok(Stored::Known(answer.seq)),
        None => Ok(Stored::New(answer.seq)),
        Some(error) if error.err_code == WRONG_LAST_SEQUENCE => Ok(Stored::Overtaken),
        Some(error) if error.err_code == STREAM_FULL => Ok(Stored::Full),
        Some(error) if error.err_code == MESSAGE_TOO_LARGE => Ok(Stored::TooLarge(error.description)),
        Some(error) => Err(ApiError { code: error.err_code, text: error.description }.into()),
    }
}

/// An acknowledgement: of which consumer, to which message, what.
#[derive(Debug, Clone)]
pub(crate) struct Ack {
    pub(crate) consumer: Arc<str>,
    pub(crate) to: Arc<str>,
    pub(crate) verb: &'static [u8],
    /// The connection on which the message was delivered.
    pub(crate) generation: u64,
}

pub(crate) const DONE: &[u8] = b"+ACK";
pub(crate) const GIVEN_BACK: &[u8] = b"-NAK";
pub(crate) const IN_PROGRESS: &[u8] = b"+WPI";

/// Sends acknowledgements, and waits until the server has heard them. It takes those of a consumer in the order in which they were sent, so
/// only the last of each is to be answered; or all of them.
pub(crate) async fn ack_all(session: &Session, acks: &[Ack]) -> Result<(), BackendError> {
    let acks = known_to_server(session, acks).await?;
    // Mostly all are of one.
    let mut last: Vec<(&str, usize)> = Vec::new();
    for (at, ack) in acks.iter().enumerate() {
        match last.iter_mut().find(|(consumer, _)| *consumer == &*ack.consumer) {
            Some((_, last)) => *last = at,
            None => last.push((&ack.consumer, at)),
        }
    }
    let mut answers = Vec::new();
    for (at, ack) in acks.iter().enumerate() {
        if last.iter().any(|(_, last)| *last == at) {
            answers.push(session.tap.ask(&ack.to, ack.verb));
        } else {
            session.tap.publish(&ack.to, "", ack.verb);
        }
    }
    session.tap.send().map_err(unavailable)?;
    // A consumer that was removed does not answer, and needs none: the server says that nobody listens.
    for answer in answers {
        in_time(session, answer).await?.map_err(|_| cut_off())?;
    }
    Ok(())
}

/// Without those of deliveries that the server has forgotten: after a crash it may be behind what it had delivered. To such a one a server of
/// 2.15 does not answer, and one of 2.9 answers and does nothing. It is going to deliver it once more, and that is acknowledged then.
async fn known_to_server<'a>(session: &Session, acks: &'a [Ack]) -> Result<Vec<&'a Ack>, BackendError> {
    let is_early = |ack: &Ack| ack.generation != session.generation;
    let mut delivered: HashMap<Arc<str>, u64> = HashMap::new();
    for ack in acks.iter().filter(|ack| is_early(ack)) {
        if !delivered.contains_key(&ack.consumer) {
            let info = api(session, &format!("CONSUMER.INFO.{}", ack.consumer.replace('/', ".")), &Value::Null).await?;
            // One that is not there has delivered nothing.
            let last = info.map_or(0, |info| info["delivered"]["stream_seq"].as_u64().unwrap_or(0));
            delivered.insert(ack.consumer.clone(), last);
        }
    }
    let last = |ack: &Ack| delivered.get(&ack.consumer).copied().unwrap_or(0);
    let is_known = |ack: &&Ack| !is_early(ack) || Standing::of(&ack.to).is_some_and(|it| it.sequence <= last(ack));
    Ok(acks.iter().filter(is_known).collect())
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) stored_at: SystemTime,
    pub(crate) subject: Subject,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

impl Entry {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

/// Which message of a stream.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// The one with this number.
    Number(u64),
    /// The last one on this subject.
    LastOf(String),
    /// The first one on a subject that matches, with this number or a higher one.
    NextOf(String, u64),
}

/// Single messages of a stream, in the order of the questions.
pub(crate) async fn get_all(
    session: &Session,
    stream: &str,
    which: &[Which],
) -> Result<Vec<Option<Entry>>, BackendError> {
    if session.is_replicated.load(Ordering::SeqCst) {
        return leader::get_all(session, stream, which).await;
    }
    let mut answers = session.router.call();
    for (number, which) in which.iter().enumerate() {
        let (subject, request) = match which {
            Which::LastOf(subject) => (format!("$JS.API.DIRECT.GET.{stream}.{subject}"), Bytes::new()),
            Which::Number(sequence) => {
                (format!("$JS.API.DIRECT.GET.{stream}"), json!({ "seq": sequence }).to_string().into())
            }
            Which::NextOf(filter, from) => {
                let request = json!({ "seq": from, "next_by_subj": filter });
                (format!("$JS.API.DIRECT.GET.{stream}"), request.to_string().into())
            }
        };
        session.client.publish_with_reply(subject, answers.address(number), request).await.map_err(unavailable)?;
    }
    let mut found = vec![None; which.len()];
    for _ in 0..which.len() {
        let (number, message) = next_of(session, &mut answers).await?;
        match message.status.map(|status| status.as_u16()) {
            None => found[number] = Some(direct(message)?),
            Some(404) => {}
            Some(503) => return Err(unavailable(format!("the stream {stream} is not there"))),
            Some(_) => return Err(unavailable(message.description.unwrap_or_default())),
        }
    }
    Ok(found)
}

/// One of them.
pub(crate) async fn get(session: &Session, stream: &str, which: Which) -> Result<Option<Entry>, BackendError> {
    Ok(get_all(session, stream, &[which]).await?.pop().flatten())
}

fn direct(message: Message) -> Result<Entry, BackendError> {
    let headers = message.headers.map(Headers::from).unwrap_or_default();
    let sequence = headers.get("Nats-Sequence").and_then(|it| it.parse().ok());
    let stored_at = headers.get("Nats-Time-Stamp").and_then(|it| it.parse::<Timestamp>().ok());
    let subject = headers.get("Nats-Subject").map(Subject::from);
    let (Some(sequence), Some(stored_at), Some(subject)) = (sequence, stored_at, subject) else {
        return Err(unavailable("a message of a stream is not as expected"));
    };
    Ok(Entry { sequence, stored_at: stored_at.into(), subject, headers, payload: message.payload })
}

/// Where a message that a consumer delivered stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) sequence: u64,
    /// How often it was delivered, this time included.
    pub(crate) delivered: u64,
    /// Which of the consumer's deliveries it is.
    pub(crate) delivery: u64,
    pub(crate) stored_at: SystemTime,
    /// How many are there behind it.
    pub(crate) left: u64,
}

impl Standing {
    /// As the address for its acknowledgement tells: `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.…`, or with a domain and an account before
    /// the stream.
    pub(crate) fn of(reply: &str) -> Option<Self> {
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let others = if reply.bytes().filter(|byte| *byte == b'.').count() >= 10 { 4 } else { 2 };
        let mut tokens = tokens.by_ref().skip(others);
        let mut number = || tokens.next()?.parse::<u64>().ok();
        let (delivered, sequence, delivery) = (number()?, number()?, number()?);
        Some(Self {
            delivered,
            sequence,
            delivery,
            stored_at: SystemTime::UNIX_EPOCH + Duration::from_nanos(number()?),
            left: number()?,
        })
    }
}

/// Removes one message. False if it was not there.
pub(crate) async fn delete(session: &Session, stream: &str, sequence: u64) -> Result<bool, BackendError> {
    let request = json!({ "seq": sequence, "no_erase": true });
    let answer = api(session, &format!("STREAM.MSG.DELETE.{stream}"), &request).await?;
    match answer {
        Ok(answer) => Ok(answer["success"].as_bool().unwrap_or(false)),
        Err(error) if error.code == STREAM_NOT_FOUND => Err(error.into()),
        // It is not there.
        Err(_) => Ok(false),
    }
}

/// The times of the API.
pub(crate) fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(i64::MAX as u64)
}
