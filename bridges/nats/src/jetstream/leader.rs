//! Messages of a stream that several servers of a cluster keep, as the server has them that leads it. The others may be behind it; and a consumer
//! that only reads would be with one of them, which may have died. So each message is asked for, many at a time.

use std::time::SystemTime;

use async_nats::{Message, StatusCode, Subject};
use bytes::Bytes;
use data_encoding::BASE64;
use eventbroker::provider::BackendError;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::jetstream::message::{self as js, Entry, Which, unavailable};
use crate::jetstream::scan::Begin;
use crate::jetstream::stream;
use crate::transport::frame::Headers;
use crate::transport::runtime::Session;

/// Questions that are under way at a time.
const UNDER_WAY: usize = 128;
/// With so many a way begins; where few are wanted, each more looks at the same.
const FIRST_STEP: usize = 8;
/// There is no such message.
const NOT_FOUND: u64 = 10_037;

#[derive(Deserialize)]
struct Answer {
    message: Option<Told>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// A message, its bytes in letters.
#[derive(Deserialize)]
struct Told {
    subject: String,
    seq: u64,
    time: Timestamp,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

/// Single messages of a stream, in the order of the questions.
pub(crate) async fn get_all(
    session: &Session,
    stream: &str,
    which: &[Which],
) -> Result<Vec<Option<Entry>>, BackendError> {
    let mut found = vec![None; which.len()];
    for (some, found) in which.chunks(UNDER_WAY).zip(found.chunks_mut(UNDER_WAY)) {
        let mut answers = session.router.call();
        for (number, which) in some.iter().enumerate() {
            let request = match which {
                Which::Number(sequence) => json!({ "seq": sequence }),
                Which::LastOf(subject) => json!({ "last_by_subj": subject }),
                Which::NextOf(filter, from) => json!({ "seq": from, "next_by_subj": filter }),
            };
            let (verb, request) = (format!("$JS.API.STREAM.MSG.GET.{stream}"), request.to_string().into());
            session.client.publish_with_reply(verb, answers.address(number), request).await.map_err(unavailable)?;
        }
        for _ in some {
            // As long as nobody leads the stream there is no answer, which says nothing about the connection.
            let answer = Session::in_time(answers.next()).await;
            let answer = answer.ok_or_else(|| unavailable(format!("nobody leads the stream {stream}")))?;
            let (number, message) = answer.ok_or_else(js::cut_off)?;
            found[number] = read(&message)?;
        }
    }
    Ok(found)
}

fn read(message: &Message) -> Result<Option<Entry>, BackendError> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(unavailable("JetStream is not enabled on the server"));
    }
    let answer: Answer = serde_json::from_slice(&message.payload).map_err(unavailable)?;
    match (answer.message, answer.error) {
        (Some(told), _) => entry(told).map(Some),
        (None, Some(error)) if error.err_code != NOT_FOUND => {
            Err(js::ApiError { code: error.err_code, text: error.description }.into())
        }
        (None, _) => Ok(None),
    }
}

fn entry(told: Told) -> Result<Entry, BackendError> {
    let bytes = |text: &str| BASE64.decode(text.as_bytes()).map_err(unavailable);
    Ok(Entry {
        sequence: told.seq,
        stored_at: told.time.into(),
        subject: Subject::from(told.subject),
        headers: Headers::read(Bytes::from(bytes(&told.hdrs)?)),
        payload: Bytes::from(bytes(&told.data)?),
    })
}

/// A way through a stream, message by message.
#[derive(Debug)]
pub(crate) struct Walk {
    stream: String,
    filter: String,
    /// The next message has this number, or a higher one.
    pub(crate) next: u64,
    /// How many questions are worth asking at a time.
    step: usize,
}

impl Walk {
    pub(crate) async fn begin(
        session: &Session,
        stream: &str,
        filter: &str,
        from: Begin,
    ) -> Result<Self, BackendError> {
        let filter = if filter.is_empty() { ">" } else { filter };
        let next = match from {
            Begin::Number(number) => number.max(1),
            Begin::Time(time) => first_since(session, stream, time).await?,
            Begin::Last => {
                let last = get_all(session, stream, &[Which::LastOf(filter.to_owned())]).await?.pop().flatten();
                last.map_or(u64::MAX, |last| last.sequence)
            }
        };
        Ok(Self { stream: stream.to_owned(), filter: filter.to_owned(), next, step: FIRST_STEP })
    }

    /// The next messages, at most so many; none at the end. It asks for what is at each of the next numbers or behind it: where all of them are
    /// wanted, that finds as many as were asked for.
    pub(crate) async fn next(&mut self, session: &Session, max: usize) -> Result<Vec<Entry>, BackendError> {
        let mut found: Vec<Entry> = Vec::new();
        while found.len() < max {
            let asked = self.step.min(max - found.len());
            let which = |at: usize| Which::NextOf(self.filter.clone(), self.next.saturating_add(at as u64));
            let which: Vec<Which> = (0..asked).map(which).collect();
            let told = get_all(session, &self.stream, &which).await?;
            let has_ended = told.last().is_none_or(Option::is_none);
            let before = found.len();
            for entry in told.into_iter().flatten() {
                if entry.sequence >= self.next {
                    self.next = entry.sequence + 1;
                    found.push(entry);
                }
            }
            if has_ended {
                break;
            }
            let new = found.len() - before;
            self.step = if new == asked { (2 * asked).min(UNDER_WAY) } else { new.max(1) };
        }
        Ok(found)
    }
}

/// The first message that was stored at a time or later has this number, or a higher one.
async fn first_since(session: &Session, stream: &str, time: SystemTime) -> Result<u64, BackendError> {
    let info = stream::info(session, stream).await?.unwrap_or_default();
    let number = |name: &str| info["state"][name].as_u64().unwrap_or(0);
    let (mut from, mut to) = (number("first_seq").max(1), number("last_seq") + 1);
    while from < to {
        let middle = from + (to - from) / 2;
        let which = [Which::NextOf(">".to_owned(), middle)];
        match get_all(session, stream, &which).await?.pop().flatten() {
            Some(entry) if entry.stored_at < time => from = entry.sequence + 1,
            _ => to = middle,
        }
    }
    Ok(from)
}

/// The subjects of a stream that match, and how many messages are on each.
async fn subjects(session: &Session, stream: &str, filter: &str) -> Result<Vec<(String, u64)>, BackendError> {
    let mut found = Vec::new();
    loop {
        let request = json!({ "subjects_filter": filter, "offset": found.len() });
        let info = js::api(session, &format!("STREAM.INFO.{stream}"), &request).await??;
        let Some(some) = info["state"]["subjects"].as_object().filter(|it| !it.is_empty()) else { return Ok(found) };
        found.extend(some.iter().map(|(subject, count)| (subject.clone(), count.as_u64().unwrap_or(0))));
        // A server that tells all at once does not say how many there are.
        if found.len() as u64 >= info["total"].as_u64().unwrap_or(0) {
            return Ok(found);
        }
    }
}

/// How many messages of a stream are on subjects that match.
pub(crate) async fn count(session: &Session, stream: &str, filter: &str) -> Result<u64, BackendError> {
    Ok(subjects(session, stream, filter).await?.iter().map(|(_, count)| count).sum())
}

/// The last message of each subject that matches, in their order.
pub(crate) async fn all(session: &Session, stream: &str, filter: &str) -> Result<Vec<Entry>, BackendError> {
    let of_each = subjects(session, stream, filter).await?.into_iter().map(|(subject, _)| Which::LastOf(subject));
    let found = get_all(session, stream, &of_each.collect::<Vec<_>>()).await?;
    let mut found: Vec<Entry> = found.into_iter().flatten().collect();
    found.sort_unstable_by_key(|entry| entry.sequence);
    Ok(found)
}
