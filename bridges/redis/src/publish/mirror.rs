//! The way out. An event that cannot exist yet is appended, many in one transaction, with its id for those who come later; all
//! others by a script, so that nobody comes between looking for an id and storing it.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use eventbroker::Event;
use eventbroker::provider::{BackendError, BusyPoll, Mirror, SendOutcome};
use redis::{RedisResult, Value};

use crate::query::store::MAX_DELAY;
use crate::scripts;
use crate::scripts::entry::{Made, bytes, cloud_event, content_of, list, made, unexpected};
use crate::transport::command::Request;
use crate::transport::link::{Database, Link, millis};
use crate::transport::reply::{Piece, refusal};
use crate::transport::socket::Connection;

#[derive(Debug)]
pub(crate) struct RedisMirror {
    database: Arc<Database>,
    link: Link,
    request: Request,
    poll: BusyPoll,
}

/// What was told of an event that was appended.
struct Appended {
    id: String,
    made: Option<Made>,
    stream: usize,
    content: [u8; 8],
}

impl RedisMirror {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self {
            database: Arc::clone(database),
            link: Link::new(database),
            request: Request::default(),
            poll: BusyPoll::default(),
        }
    }

    /// Appends events whose ids nobody knows. The server begins while they are still being written.
    fn append(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        let database = Arc::clone(&self.database);
        let kept = millis(database.dedupe_window);
        let mut request = mem::take(&mut self.request);
        let mut poll = self.poll.clone();
        let (mut appended, mut ids) = (Vec::with_capacity(batch.len()), BTreeMap::<u128, Vec<u8>>::new());
        let answer = self.link.call(|connection| {
            request.clear();
            request.command(1).word("MULTI");
            for event in batch {
                let it = write(&mut request, &database, event);
                if let Some(made) = it.made {
                    let known = ids.entry(made.bucket()).or_default();
                    known.extend_from_slice(&made.bytes);
                    known.extend_from_slice(&it.content);
                }
                appended.push(it);
                if let Some(part) = request.part() {
                    connection.send(part)?;
                    request.sent();
                }
            }
            for (bucket, known) in &ids {
                let key = database.key(&format!("ids:{bucket}"));
                request.command(3).word("APPEND").word(&key).word(known);
                request.command(3).word("PEXPIRE").word(&key).word(&kept);
            }
            request.command(1).word("EXEC");
            connection.send(request.rest())?;
            let sent = Instant::now();
            meanwhile();
            if let Some(limit) = poll.limit(batch.len()) {
                connection.look_for_answer(limit)?;
            }
            let answer = answer(connection, 1 + batch.len() + 2 * ids.len());
            poll.answered(batch.len(), sent.elapsed());
            answer
        });
        (self.request, self.poll) = (request, poll);
        self.note(answer?, &appended)
    }

    /// Notes what the server has answered.
    fn note(&mut self, answer: Value, appended: &[Appended]) -> Result<Vec<SendOutcome>, BackendError> {
        let mut entries = list(answer)?;
        entries.truncate(appended.len());
        if entries.len() < appended.len() {
            return Err(unexpected(&Value::Array(entries)));
        }
        let mut far_off = redis::pipe();
        for (entry, Appended { id, made, stream, content }) in entries.into_iter().zip(appended) {
            let entry = bytes(entry)?;
            let stored = entry.iter().take_while(|it| it.is_ascii_digit());
            let stored = Duration::from_millis(
                stored.fold(0_u64, |sum, it| sum.saturating_mul(10).saturating_add(u64::from(it - b'0'))),
            );
            if made.is_none_or(|made| made.at.abs_diff(stored) > MAX_DELAY) {
                let index = [(stream + 1).to_string().as_bytes(), b" ", &entry, b" ", content].concat();
                let set = far_off.cmd("SET").arg(self.database.key(&format!("at:{id}"))).arg(index);
                set.arg("PX").arg(millis(self.database.retention)).ignore();
            }
        }
        if !far_off.is_empty() {
            self.link.call(|connection| far_off.query::<()>(connection))?;
        }
        Ok(vec![SendOutcome::Held; appended.len()])
    }
}

/// Writes the command that appends an event.
fn write(request: &mut Request, database: &Database, event: &Event) -> Appended {
    let (stream, content) = (database.stream_for(event), content_of(event));
    let id = event.id().to_string();
    let more = if database.cloud_events { cloud_event(event) } else { Vec::new() };
    request.command(15 + more.len()).word("XADD").word(&database.streams[stream]).word("*");
    request.word("event").word(event.to_json()).word("id").word(&id).word("type").word(event.event_type().as_str());
    request.word("source").word(event.source().as_str()).word("status").word("pending");
    request.word("instance_id").word(event.instance_id().unwrap_or_default());
    more.iter().for_each(|word| _ = request.word(word.as_bytes()));
    Appended { made: made(&id), id, stream, content }
}

/// The answer to a transaction, after so many others; or the first refusal, once all are read.
fn answer(connection: &mut Connection, others: usize) -> RedisResult<Value> {
    let mut refused = None;
    for _ in 0..others {
        if let Piece::Refusal(line) = connection.piece()? {
            refused = refused.or(refusal(line)?.extract_error().err());
        }
    }
    let last = connection.value()?;
    refused.map_or_else(|| last.extract_error(), Err)
}

impl Mirror for RedisMirror {
    fn send(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        // While nothing more is stored, what is known is still a duplicate.
        if batch.iter().any(Event::may_exist) || self.database.is_full.load(Ordering::SeqCst) {
            return send(&self.database, &mut self.link, batch);
        }
        let outcomes = self.append(batch, meanwhile)?;
        replicate(&self.database, &mut self.link)?;
        Ok(outcomes)
    }
}

/// Stores events that are not known.
pub(crate) fn send(database: &Database, link: &mut Link, batch: &[Event]) -> Result<Vec<SendOutcome>, BackendError> {
    let (window, kept, tolerance) = (millis(database.dedupe_window), millis(database.retention), millis(MAX_DELAY));
    let mut owned: Vec<[Vec<u8>; 8]> = Vec::with_capacity(batch.len());
    for event in batch {
        let id = event.id().to_string();
        let stream = (database.stream_for(event) + 1).to_string();
        let [at, bytes, bucket] = made(&id).map_or_else(Default::default, |made| {
            [made.at.as_millis().to_string().into(), made.bytes.to_vec(), made.bucket().to_string().into()]
        });
        let more = if database.cloud_events {
            serde_json::to_string(&cloud_event(event)).unwrap_or_default()
        } else {
            String::new()
        };
        owned.push([
            id.into(),
            event.to_json(),
            content_of(event).to_vec(),
            stream.into(),
            at,
            bytes,
            bucket,
            more.into(),
        ]);
    }
    let is_full = if database.is_full.load(Ordering::SeqCst) { "1" } else { "0" };
    let mut arguments: Vec<&[u8]> = [&*window, &kept, &tolerance, is_full].map(str::as_bytes).to_vec();
    for (event, [id, rest @ ..]) in batch.iter().zip(&owned) {
        let (event_type, instance) = (event.event_type().as_str(), event.instance_id().unwrap_or_default());
        arguments.push(id);
        arguments.extend([event_type, event.source().as_str(), instance].map(str::as_bytes));
        arguments.extend(rest.each_ref().map(Vec::as_slice));
    }
    let mut outcomes = Vec::with_capacity(batch.len());
    for (answer, [_, _, content, ..]) in list(link.run(&scripts::STORE_EVENTS, &arguments)?)?.into_iter().zip(&owned) {
        let answer = bytes(answer)?;
        outcomes.push(match answer.strip_prefix(b"=") {
            None if answer == b"!" => SendOutcome::Full { max_backlog: database.max_backlog },
            Some(known) if known == content => SendOutcome::Known,
            Some(_) => SendOutcome::Conflict,
            None => SendOutcome::Held,
        });
    }
    replicate(database, link)?;
    Ok(outcomes)
}

/// Waits until enough replicas have what this connection has seen, which is what it has stored and what it has found to be known.
fn replicate(database: &Database, link: &mut Link) -> Result<(), BackendError> {
    let (wanted, limit) = (database.min_replicas, database.replica_timeout);
    if wanted == 0 {
        return Ok(());
    }
    let have: u32 = link.call(|it| redis::cmd("WAIT").arg(wanted).arg(limit.as_millis().max(1) as u64).query(it))?;
    if have >= wanted {
        return Ok(());
    }
    let place = &database.place;
    Err(BackendError::Unavailable(format!("{place}: {have} replicas of {wanted} have it after {limit:?}")))
}
