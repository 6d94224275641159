//! Reading a replicated stream at its leader. The other servers answer direct gets too, but may be behind; and a consumer of one replica would
//! die with its server. So each message is a request of its own, many at a time.

use std::time::SystemTime;

use async_nats::{Message, StatusCode, Subject};
use bytes::Bytes;
use data_encoding::BASE64;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::api::{ApiError, Result, api, unavailable};
use super::message::{Get, StoredMessage};
use super::names;
use super::scan::{ScanRequest, Start};
use super::stream;
use crate::transport::{Headers, Session};

/// The largest number of requests at a time.
const AT_A_TIME: usize = 128;
/// The requests of the first step: where few messages match, more of them find the same message.
const FIRST_STEP: usize = 8;
/// No message matches.
const NOT_FOUND: u64 = 10_037;

#[derive(Deserialize)]
struct GetAnswer {
    message: Option<Encoded>,
    error: Option<ApiError>,
}

/// A message with its headers and its body in base64.
#[derive(Deserialize)]
struct Encoded {
    subject: String,
    seq: u64,
    time: Timestamp,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

/// Reads messages of a stream, in the order of the requests.
pub(super) async fn get_all(session: &Session, stream: &str, gets: &[Get]) -> Result<Vec<Option<StoredMessage>>> {
    let request = |get: &Get| {
        let request = match get {
            Get::Sequence(sequence) => json!({ "seq": sequence }),
            Get::Last(subject) => json!({ "last_by_subj": subject }),
            Get::Next(filter, from) => json!({ "seq": from, "next_by_subj": filter }),
        };
        (Subject::from(format!("$JS.API.STREAM.MSG.GET.{stream}")), None, request.to_string().into())
    };
    let mut found = Vec::with_capacity(gets.len());
    for some in gets.chunks(AT_A_TIME) {
        // A stream without a leader does not answer, which says nothing about the connection.
        for answer in session.ask_all(some.iter().map(request), false).await? {
            found.push(read(&answer.ok_or_else(|| unavailable("a request is too large"))?)?);
        }
    }
    Ok(found)
}

fn read(message: &Message) -> Result<Option<StoredMessage>> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(unavailable("JetStream is not enabled on the server"));
    }
    let answer: GetAnswer = serde_json::from_slice(&message.payload).map_err(unavailable)?;
    match (answer.message, answer.error) {
        (Some(encoded), _) => decoded(encoded).map(Some),
        (None, Some(error)) if error.code != NOT_FOUND => Err(error.into()),
        (None, _) => Ok(None),
    }
}

fn decoded(encoded: Encoded) -> Result<StoredMessage> {
    let bytes = |text: &str| BASE64.decode(text.as_bytes()).map_err(unavailable);
    Ok(StoredMessage {
        sequence: encoded.seq,
        stored_at: encoded.time.into(),
        subject: Subject::from(encoded.subject),
        headers: Headers::read(Bytes::from(bytes(&encoded.hdrs)?)),
        payload: Bytes::from(bytes(&encoded.data)?),
    })
}

/// A scan of a stream, message by message.
pub(crate) struct LeaderScan {
    stream: String,
    filters: Vec<String>,
    /// The next message has this sequence, or a higher one.
    pub(super) next: u64,
    /// The number of requests of the next step.
    step: usize,
}

impl LeaderScan {
    pub(super) async fn open(session: &Session, request: ScanRequest<'_>) -> Result<Self> {
        let ScanRequest { stream, filters, start, .. } = request;
        let mut scan = Self { stream: stream.to_owned(), filters: filters.to_vec(), next: 1, step: FIRST_STEP };
        scan.next = match start {
            Start::At(sequence) => sequence.max(1),
            Start::Time(time) => first_since(session, stream, time).await?,
            Start::Last => {
                let last = get_all(session, stream, &[Get::Last(scan.filter())]).await?.pop().flatten();
                last.map_or(u64::MAX, |last| last.sequence)
            }
        };
        Ok(scan)
    }

    /// The filter of a request, which takes only one: with several, all messages are read and the others are left out here.
    fn filter(&self) -> String {
        if let [filter] = &self.filters[..] { filter.clone() } else { ">".to_owned() }
    }

    /// The next messages, at most `max`; none at the end. Each request asks for the first match at one of the next numbers or behind it, so
    /// where every message matches, each request finds another one.
    pub(super) async fn next(&mut self, session: &Session, max: usize) -> Result<Vec<StoredMessage>> {
        let matches = |filters: &[String], subject: &str| {
            filters.len() < 2 || filters.iter().any(|filter| names::covers(filter, subject))
        };
        let mut found: Vec<StoredMessage> = Vec::new();
        while found.len() < max {
            let asked = self.step.min(max - found.len());
            let get = |at: usize| Get::Next(self.filter(), self.next.saturating_add(at as u64));
            let answers = get_all(session, &self.stream, &(0..asked).map(get).collect::<Vec<_>>()).await?;
            let has_ended = answers.last().is_none_or(Option::is_none);
            let mut new = 0;
            for message in answers.into_iter().flatten() {
                if message.sequence >= self.next {
                    (self.next, new) = (message.sequence + 1, new + 1);
                    if matches(&self.filters, &message.subject) {
                        found.push(message);
                    }
                }
            }
            if has_ended {
                break;
            }
            self.step = if new == asked { (2 * asked).min(AT_A_TIME) } else { new.max(1) };
        }
        Ok(found)
    }
}

/// The first message that was stored at a time or later has this sequence, or a higher one.
async fn first_since(session: &Session, stream: &str, time: SystemTime) -> Result<u64> {
    let info = stream::info(session, stream).await?.unwrap_or_default();
    let (mut from, mut to) = (stream::state(&info, "first_seq").max(1), stream::state(&info, "last_seq") + 1);
    while from < to {
        let middle = from + (to - from) / 2;
        match get_all(session, stream, &[Get::Next(">".to_owned(), middle)]).await?.pop().flatten() {
            Some(message) if message.stored_at < time => from = message.sequence + 1,
            _ => to = middle,
        }
    }
    Ok(from)
}

/// The subjects of a stream that match, with their numbers of messages.
async fn subjects(session: &Session, stream: &str, filter: &str) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    loop {
        let request = json!({ "subjects_filter": filter, "offset": found.len() });
        let info = api(session, &format!("STREAM.INFO.{stream}"), &request).await??;
        let Some(some) = info["state"]["subjects"].as_object().filter(|it| !it.is_empty()) else { return Ok(found) };
        found.extend(some.iter().map(|(subject, count)| (subject.clone(), count.as_u64().unwrap_or(0))));
        if found.len() as u64 >= info["total"].as_u64().unwrap_or(0) {
            return Ok(found);
        }
    }
}

/// The number of messages of a stream on subjects that match.
pub(super) async fn count(session: &Session, stream: &str, filter: &str) -> Result<u64> {
    Ok(subjects(session, stream, filter).await?.iter().map(|(_, count)| count).sum())
}

/// The last message of each subject that matches, in their order.
pub(super) async fn all(session: &Session, stream: &str, filter: &str) -> Result<Vec<StoredMessage>> {
    let gets = subjects(session, stream, filter).await?.into_iter().map(|(subject, _)| Get::Last(subject));
    let found = get_all(session, stream, &gets.collect::<Vec<_>>()).await?;
    let mut found: Vec<StoredMessage> = found.into_iter().flatten().collect();
    found.sort_unstable_by_key(|message| message.sequence);
    Ok(found)
}
