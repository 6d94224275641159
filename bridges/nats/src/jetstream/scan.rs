//! Reading many messages of a stream: by a consumer that the server forgets, or [at the leader](super::leader) of a replicated stream.

use std::time::{Duration, SystemTime};

use async_nats::{Message, Subject};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{Result, api, nanos, unavailable};
use super::consumer;
use super::leader::{self, LeaderScan};
use super::message::{DeliveryInfo, StoredMessage};
use crate::transport::{Headers, Session};

/// The server removes an unused consumer after this time.
const INACTIVE: Duration = Duration::from_secs(30);
/// Messages of a step that reads all.
const STEP: usize = 1_000;
/// How long the delivery of existing messages may take.
const FETCH_LIMIT: Duration = Duration::from_secs(2);

/// The first message of a scan or a consumer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    At(u64),
    Time(SystemTime),
    /// The last message.
    Last,
}

impl Start {
    /// The configuration of a consumer that starts here.
    pub(super) fn config(self) -> Value {
        match self {
            Self::At(..=1) => json!({ "deliver_policy": "all" }),
            Self::At(sequence) => json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": sequence }),
            Self::Last => json!({ "deliver_policy": "last" }),
            Self::Time(time) => {
                let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
                json!({ "deliver_policy": "by_start_time", "opt_start_time": time.to_string() })
            }
        }
    }
}

/// The messages that a scan reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanRequest<'a> {
    pub(super) stream: &'a str,
    pub(super) filters: &'a [String],
    pub(super) start: Start,
    headers_only: bool,
}

impl<'a> ScanRequest<'a> {
    /// The messages from `start` on that match one of the filters; none stands for all messages.
    pub(crate) fn new(stream: &'a str, filters: &'a [String], start: Start) -> Self {
        Self { stream, filters, start, headers_only: false }
    }

    /// The bodies are not needed.
    pub(crate) fn headers_only(self) -> Self {
        Self { headers_only: true, ..self }
    }
}

/// A scan of a stream, in steps.
pub(crate) enum Scan {
    ByConsumer(ConsumerScan),
    AtLeader(LeaderScan),
}

/// A scan by a consumer.
pub(crate) struct ConsumerScan {
    stream: String,
    consumer: String,
    /// The number of messages to come.
    left: u64,
    first: u64,
}

impl Scan {
    /// Begins a scan.
    pub(crate) async fn open(session: &Session, request: ScanRequest<'_>) -> Result<Self> {
        if session.is_replicated() {
            return LeaderScan::open(session, request).await.map(Self::AtLeader);
        }
        ConsumerScan::open(session, request).await.map(Self::ByConsumer)
    }

    /// The first message of the scan has this sequence, or a higher one.
    pub(crate) fn first(&self) -> u64 {
        match self {
            Self::ByConsumer(scan) => scan.first,
            Self::AtLeader(scan) => scan.next,
        }
    }

    /// The next messages, at most `max`; none at the end.
    pub(crate) async fn next(&mut self, session: &Session, max: usize) -> Result<Vec<StoredMessage>> {
        match self {
            Self::ByConsumer(scan) => scan.next(session, max).await,
            Self::AtLeader(scan) => scan.next(session, max).await,
        }
    }

    pub(crate) async fn close(self, session: &Session) {
        if let Self::ByConsumer(scan) = self {
            scan.close(session).await;
        }
    }
}

impl ConsumerScan {
    pub(crate) async fn open(session: &Session, request: ScanRequest<'_>) -> Result<Self> {
        let ScanRequest { stream, filters, start, headers_only } = request;
        let mut config = start.config();
        config["ack_policy"] = json!("none");
        config["mem_storage"] = json!(true);
        config["num_replicas"] = json!(1);
        config["inactive_threshold"] = json!(nanos(INACTIVE));
        config["headers_only"] = json!(headers_only);
        consumer::set_filters(&mut config, filters);
        let request = json!({ "stream_name": stream, "config": config });
        let made = api(session, &format!("CONSUMER.CREATE.{stream}"), &request).await??;
        Ok(Self {
            stream: stream.to_owned(),
            consumer: made["name"].as_str().unwrap_or_default().to_owned(),
            left: made["num_pending"].as_u64().unwrap_or(0),
            first: made["delivered"]["stream_seq"].as_u64().unwrap_or(0) + 1,
        })
    }

    async fn next(&mut self, session: &Session, max: usize) -> Result<Vec<StoredMessage>> {
        let count = self.left.min(max as u64);
        if count == 0 {
            return Ok(Vec::new());
        }
        let found = self.pull(session, count, FETCH_LIMIT).await?;
        // Messages that were removed meanwhile do not arrive.
        let has_ended = found.last().is_none_or(|(_, left)| *left == 0);
        self.left = if has_ended { 0 } else { self.left.saturating_sub(found.len() as u64) };
        Ok(found.into_iter().map(|(message, _)| message).collect())
    }

    /// The next messages, at most `max`; waits for the first one. Requests only messages that exist, so that the server delivers none after the
    /// end of the wait.
    pub(crate) async fn wait(&mut self, session: &Session, max: usize, wait: Duration) -> Result<Vec<StoredMessage>> {
        let mut found = self.pull(session, 1, wait).await?;
        let more = found.last().map_or(0, |(_, left)| *left).min(max.saturating_sub(1) as u64);
        if more > 0 {
            found.extend(self.pull(session, more, FETCH_LIMIT).await?);
        }
        Ok(found.into_iter().map(|(message, _)| message).collect())
    }

    /// Pulls messages, each with the number of messages behind it.
    async fn pull(&self, session: &Session, count: u64, wait: Duration) -> Result<Vec<(StoredMessage, u64)>> {
        let request = json!({ "batch": count, "expires": nanos(wait) }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
        let mut messages = session.request_many(subject, request.into()).await?;
        let mut found: Vec<(StoredMessage, u64)> = Vec::new();
        let read = async {
            while let Some(message) = messages.next().await {
                let is_gone = message.status.is_some_and(|status| ![404, 408].contains(&status.as_u16()));
                let Some(delivered) = delivered(message) else { return is_gone };
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
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{}", self.stream, self.consumer);
        // If this request is lost, the server removes the unused consumer.
        session.request_unanswered(subject).await;
    }
}

/// A delivered message, and the number of messages behind it.
fn delivered(message: Message) -> Option<(StoredMessage, u64)> {
    let info = DeliveryInfo::of(message.reply.as_ref().map(Subject::as_str)?)?;
    let (DeliveryInfo { sequence, stored_at, left, .. }, Message { subject, headers, payload, .. }) = (info, message);
    let headers = headers.map(Headers::from).unwrap_or_default();
    Some((StoredMessage { sequence, stored_at, subject, headers, payload }, left))
}

/// All messages of a stream with one message per subject, on subjects that match.
pub(crate) async fn all(session: &Session, stream: &str, filter: &str) -> Result<Vec<StoredMessage>> {
    if session.is_replicated() {
        return leader::all(session, stream, filter).await;
    }
    let filters = [filter.to_owned()];
    let mut scan = ConsumerScan::open(session, ScanRequest::new(stream, &filters, Start::At(1))).await?;
    let mut found = Vec::new();
    loop {
        let next = scan.next(session, STEP).await?;
        if next.is_empty() {
            break;
        }
        found.extend(next);
    }
    scan.close(session).await;
    Ok(found)
}

/// The number of messages of a stream on subjects that match.
pub(crate) async fn count(session: &Session, stream: &str, filter: &str) -> Result<u64> {
    if session.is_replicated() {
        return leader::count(session, stream, filter).await;
    }
    let filters = [filter.to_owned()];
    let scan = ConsumerScan::open(session, ScanRequest::new(stream, &filters, Start::At(1)).headers_only()).await?;
    let count = scan.left;
    scan.close(session).await;
    Ok(count)
}
