//! Ranges of a stream, read in steps by a consumer that the server forgets; those of a stream that several servers keep, [at that which leads
//! it](crate::jetstream::leader).

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use async_nats::{Message, Subject};
use bytes::Bytes;
use eventbroker::provider::BackendError;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::jetstream::leader::{self, Walk};
use crate::jetstream::message::{Entry, Standing, api, nanos, unavailable};
use crate::transport::frame::Headers;
use crate::transport::runtime::Session;

/// How long a consumer that nobody asks any more is kept by the server.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// Messages of a step, where all are wanted.
const STEP: usize = 1_000;
/// How long messages that are there may take.
const FETCH_LIMIT: Duration = Duration::from_secs(2);

/// Where a range of a stream begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin {
    Number(u64),
    Time(SystemTime),
    /// The last message.
    Last,
}

/// A range of a stream, read in steps.
#[derive(Debug)]
pub(crate) enum Range {
    ByConsumer(Reading),
    AtLeader(Walk),
}

/// A consumer of somebody's own, which the server forgets.
#[derive(Debug)]
pub(crate) struct Reading {
    stream: String,
    consumer: String,
    /// How many messages are still to come.
    left: u64,
    /// The first message that is not before the beginning has this number, or a higher one.
    first: u64,
}

/// The settings of a consumer that begins somewhere.
pub(crate) fn begin(from: Begin) -> Value {
    match from {
        Begin::Number(sequence) if sequence <= 1 => json!({ "deliver_policy": "all" }),
        Begin::Number(sequence) => json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": sequence }),
        Begin::Last => json!({ "deliver_policy": "last" }),
        Begin::Time(time) => {
            let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
            json!({ "deliver_policy": "by_start_time", "opt_start_time": time.to_string() })
        }
    }
}

impl Range {
    /// With `heads` nobody needs what the messages hold.
    pub(crate) async fn open(
        session: &Session,
        stream: &str,
        filter: &str,
        from: Begin,
        heads: bool,
    ) -> Result<Self, BackendError> {
        if session.is_replicated.load(Ordering::SeqCst) {
            return Walk::begin(session, stream, filter, from).await.map(Self::AtLeader);
        }
        Reading::open(session, stream, filter, from, heads).await.map(Self::ByConsumer)
    }

    /// The first message that is not before the beginning has this number, or a higher one.
    pub(crate) fn first(&self) -> u64 {
        match self {
            Self::ByConsumer(reading) => reading.first,
            Self::AtLeader(walk) => walk.next,
        }
    }

    /// The next messages of the range, at most so many; none if it has ended.
    pub(crate) async fn next(&mut self, session: &Session, max: usize) -> Result<Vec<Entry>, BackendError> {
        match self {
            Self::ByConsumer(reading) => reading.next(session, max).await,
            Self::AtLeader(walk) => walk.next(session, max).await,
        }
    }

    /// It is not needed any more.
    pub(crate) async fn close(self, session: &Session) {
        if let Self::ByConsumer(reading) = self {
            reading.close(session).await;
        }
    }
}

impl Reading {
    pub(crate) async fn open(
        session: &Session,
        stream: &str,
        filter: &str,
        from: Begin,
        heads: bool,
    ) -> Result<Self, BackendError> {
        let mut config = begin(from);
        config["ack_policy"] = json!("none");
        config["mem_storage"] = json!(true);
        config["num_replicas"] = json!(1);
        config["inactive_threshold"] = json!(nanos(FORGET_AFTER));
        config["headers_only"] = json!(heads);
        if !filter.is_empty() {
            config["filter_subject"] = json!(filter);
        }
        let request = json!({ "stream_name": stream, "config": config });
        let made = api(session, &format!("CONSUMER.CREATE.{stream}"), &request).await??;
        let before = made["delivered"]["stream_seq"].as_u64().unwrap_or(0);
        Ok(Self {
            stream: stream.to_owned(),
            consumer: made["name"].as_str().unwrap_or_default().to_owned(),
            left: made["num_pending"].as_u64().unwrap_or(0),
            first: before + 1,
        })
    }

    async fn next(&mut self, session: &Session, max: usize) -> Result<Vec<Entry>, BackendError> {
        let count = self.left.min(max as u64);
        if count == 0 {
            return Ok(Vec::new());
        }
        let found = self.pull(session, count, FETCH_LIMIT).await?;
        // What somebody has removed meanwhile does not come.
        let has_ended = found.last().is_none_or(|(_, left)| *left == 0);
        self.left = if has_ended { 0 } else { self.left.saturating_sub(found.len() as u64) };
        Ok(found.into_iter().map(|(entry, _)| entry).collect())
    }

    /// The next messages, also those that are still to be stored; waits for the first of them. It asks for no more than there are, so that
    /// nothing is delivered to nobody.
    pub(crate) async fn wait(
        &mut self,
        session: &Session,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Entry>, BackendError> {
        let mut found = self.pull(session, 1, wait).await?;
        let more = found.last().map_or(0, |(_, left)| *left).min(max.saturating_sub(1) as u64);
        if more > 0 {
            found.extend(self.pull(session, more, FETCH_LIMIT).await?);
        }
        Ok(found.into_iter().map(|(entry, _)| entry).collect())
    }

    /// Messages, each with how many are there behind it.
    async fn pull(&self, session: &Session, count: u64, wait: Duration) -> Result<Vec<(Entry, u64)>, BackendError> {
        let inbox = session.client.new_inbox();
        let mut messages = session.client.subscribe(inbox.clone()).await.map_err(unavailable)?;
        let request = json!({ "batch": count, "expires": nanos(wait) }).to_string();
        let verb = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
        session.client.publish_with_reply(verb, inbox, request.into()).await.map_err(unavailable)?;
        let mut found: Vec<(Entry, u64)> = Vec::new();
        let read = async {
            while let Some(message) = messages.next().await {
                let is_gone = message.status.is_some_and(|status| ![404, 408].contains(&status.as_u16()));
                let Some(delivered) = delivered(message) else { return is_gone };
                // Whoever asks for one waits for it; else all that are asked for are there.
                let is_last = delivered.1 == 0;
                found.push(delivered);
                if is_last || found.len() as u64 >= count {
                    break;
                }
            }
            false
        };
        match Session::within(wait + Duration::from_secs(1), read).await {
            Some(true) => Err(unavailable("a consumer has gone with its server")),
            None if found.is_empty() => Err(unavailable("a consumer does not answer")),
            _ => Ok(found),
        }
    }

    async fn close(self, session: &Session) {
        let verb = format!("$JS.API.CONSUMER.DELETE.{}.{}", self.stream, self.consumer);
        // If this is lost, the server forgets it by itself.
        let _ = session.client.publish(verb, Bytes::new()).await;
    }
}

/// A message that was delivered, and how many are there behind it.
fn delivered(message: Message) -> Option<(Entry, u64)> {
    let reply = message.reply.as_ref().map(Subject::as_str)?;
    let standing = Standing::of(reply)?;
    let left = standing.left;
    let entry = Entry {
        sequence: standing.sequence,
        stored_at: standing.stored_at,
        subject: message.subject,
        headers: message.headers.map(Headers::from).unwrap_or_default(),
        payload: message.payload,
    };
    Some((entry, left))
}

/// All messages of a stream that has one for each subject, of the subjects that match.
pub(crate) async fn all(session: &Session, stream: &str, filter: &str) -> Result<Vec<Entry>, BackendError> {
    if session.is_replicated.load(Ordering::SeqCst) {
        return leader::all(session, stream, filter).await;
    }
    let mut reading = Reading::open(session, stream, filter, Begin::Number(1), false).await?;
    let mut found = Vec::new();
    loop {
        let next = reading.next(session, STEP).await?;
        if next.is_empty() {
            break;
        }
        found.extend(next);
    }
    reading.close(session).await;
    Ok(found)
}

/// How many messages of a stream are on subjects that match.
pub(crate) async fn count(session: &Session, stream: &str, filter: &str) -> Result<u64, BackendError> {
    if session.is_replicated.load(Ordering::SeqCst) {
        return leader::count(session, stream, filter).await;
    }
    let reading = Reading::open(session, stream, filter, Begin::Number(1), true).await?;
    let count = reading.left;
    reading.close(session).await;
    Ok(count)
}
