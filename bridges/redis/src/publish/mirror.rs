//! Publishing a batch. Plain commands append events that cannot exist yet, all in one transaction, with their ids for later checks of
//! duplicates. If any event of the batch may exist, a script stores them all ([`store`](super::store())).

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::Event;
use eventbroker::provider::{BackendError, BusyPoll, Mirror, SendOutcome};
use eventbroker_bridge_kit::id_time::{IdTime, id_time};
use redis::{RedisResult, Value};

use super::store::{Publishing, store, wait_for_replicas};
use crate::scripts::{Client, Layout, TOLERANCE, content_hash, id_bucket, millis};
use crate::transport::{Connection, Piece, Request, refusal};

pub(crate) struct RedisMirror {
    publishing: Publishing,
    client: Client,
    request: Request,
    poll: BusyPoll,
}

/// An event of a transaction.
struct Appended {
    id: String,
    time: Option<IdTime>,
    stream: usize,
    hash: [u8; 8],
}

impl RedisMirror {
    pub(crate) fn new(publishing: Publishing, client: Client) -> Self {
        Self { publishing, client, request: Request::default(), poll: BusyPoll::default() }
    }

    /// Appends events whose ids are new. The server begins while later events are still being written.
    fn append(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        let (layout, window) = (Arc::clone(&self.client.layout), millis(self.publishing.settings.dedupe_window));
        let mut request = mem::take(&mut self.request);
        let mut poll = self.poll.clone();
        let (mut appended, mut buckets) = (Vec::with_capacity(batch.len()), BTreeMap::<u128, Vec<u8>>::new());
        let reply = self.client.link.call(|connection| {
            request.clear();
            request.words(&["MULTI"]);
            for event in batch {
                let it = write(&mut request, &layout, event);
                if let Some(time) = it.time {
                    let ids = buckets.entry(id_bucket(&time)).or_default();
                    ids.extend_from_slice(&time.bytes);
                    ids.extend_from_slice(&it.hash);
                }
                appended.push(it);
                if let Some(part) = request.part() {
                    connection.send(part)?;
                    request.sent();
                }
            }
            for (bucket, ids) in &buckets {
                let key = layout.key(&format!("ids:{bucket}"));
                request.command(3).word("APPEND").word(&key).word(ids);
                request.words(&["PEXPIRE", &key, &window]);
            }
            request.words(&["EXEC"]);
            connection.send(request.rest())?;
            let sent = Instant::now();
            meanwhile();
            if let Some(limit) = poll.limit(batch.len()) {
                connection.poll_reply(limit)?;
            }
            let reply = transaction_reply(connection, 1 + batch.len() + 2 * buckets.len());
            poll.answered(batch.len(), sent.elapsed());
            reply
        });
        (self.request, self.poll) = (request, poll);
        self.index(reply?, &appended)?;
        Ok(vec![SendOutcome::Held; appended.len()])
    }

    /// Adds an index entry for each event whose entry is not near the time in its id.
    fn index(&mut self, reply: Vec<Value>, appended: &[Appended]) -> Result<(), BackendError> {
        let kept = millis(self.publishing.settings.retention);
        if reply.len() < appended.len() {
            return Err(self.client.unavailable("EXEC has returned too little"));
        }
        let mut index = redis::pipe();
        for (entry, Appended { id, time, stream, hash }) in reply.into_iter().zip(appended) {
            let Value::BulkString(entry) = entry else {
                return Err(self.client.unavailable("XADD has returned no entry"));
            };
            let millis_of_entry = entry.iter().take_while(|it| it.is_ascii_digit());
            let stored = Duration::from_millis(
                millis_of_entry.fold(0_u64, |sum, it| sum.saturating_mul(10).saturating_add(u64::from(it - b'0'))),
            );
            if time.is_none_or(|time| time.at.abs_diff(stored) > TOLERANCE) {
                let place = [(stream + 1).to_string().as_bytes(), b" ", &entry, b" ", hash].concat();
                let set = index.cmd("SET").arg(self.client.layout.key_of("at", id)).arg(place);
                set.arg("PX").arg(&kept).ignore();
            }
        }
        self.client.send(&index)
    }
}

/// Writes the command that appends an event.
fn write(request: &mut Request, layout: &Layout, event: &Event) -> Appended {
    let (stream, id) = (layout.index_for(event), event.id().to_string());
    request.command(15).word("XADD").word(&layout.streams[stream]).word("*");
    request.word("event").word(event.to_json()).word("id").word(&id).word("type").word(event.event_type().as_str());
    request.word("source").word(event.source().as_str()).word("status").word("pending");
    request.word("instance_id").word(event.instance_id().unwrap_or_default());
    Appended { time: id_time(&id), id, stream, hash: content_hash(event) }
}

/// The reply to `EXEC`, which follows `others` replies. Reads all replies, then fails with the first refusal.
fn transaction_reply(connection: &mut Connection, others: usize) -> RedisResult<Vec<Value>> {
    let mut refused = None;
    for _ in 0..others {
        if let Piece::Refusal(line) = connection.piece()? {
            refused = refused.or(refusal(line)?.extract_error().err());
        }
    }
    let last = connection.value()?;
    refused.map_or_else(|| Ok(redis::from_redis_value(last.extract_error()?)?), Err)
}

impl Mirror for RedisMirror {
    fn send(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        // A script recognizes duplicates also while nothing more is stored.
        if batch.iter().any(Event::may_exist) || self.publishing.backlog.is_reached() {
            return store(&self.publishing, &mut self.client, batch);
        }
        let outcomes = self.append(batch, meanwhile)?;
        wait_for_replicas(&self.publishing.settings, &mut self.client)?;
        Ok(outcomes)
    }
}
