//! The way out. An event whose id nobody can have seen is simply appended, many in one transaction, with its id for those who come later; all
//! others by a script, so that nobody comes between looking for an id and storing it.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::Event;
use eventbroker::provider::{BackendError, Mirror, SendOutcome};
use redis::{Connection, RedisResult, Value};

use crate::connection::{Database, Link, millis};
use crate::entry::{content_of, list, parts, text, texts, time_of, to_json, unexpected};
use crate::scripts;
use crate::store::MAX_DELAY;
use crate::wire::Request;

#[derive(Debug)]
pub(crate) struct RedisMirror {
    database: Arc<Database>,
    link: Link,
    request: Request,
    /// The server's time since 1970 at a moment of ours.
    clock: Option<(Duration, Instant)>,
}

/// What was told of an event that was appended.
struct Appended {
    id: String,
    /// The time in its id.
    at: Option<Duration>,
    stream: usize,
    content: String,
}

impl RedisMirror {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        let (database, link) = (Arc::clone(database), Link::new(database));
        Self { database, link, request: Request::default(), clock: None }
    }

    /// Appends events whose ids nobody knows. The server begins while they are still being written.
    fn append(
        &mut self,
        batch: &[Event],
        now: Duration,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Vec<SendOutcome>, BackendError> {
        let database = Arc::clone(&self.database);
        let bucket = now.as_millis() / database.dedupe_window.as_millis();
        let ids = database.key(&format!("ids:{bucket}"));
        let mut request = mem::take(&mut self.request);
        let mut appended = Vec::with_capacity(batch.len());
        let answer = self.link.call(|connection| {
            request.clear();
            request.command(1).word("MULTI");
            for event in batch {
                appended.push(write(&mut request, &database, event));
                if let Some(part) = request.part() {
                    connection.send_packed_command(part)?;
                    request.sent();
                }
            }
            request.command(2 + 2 * appended.len()).word("HSET").word(&ids);
            appended.iter().for_each(|it| _ = request.word(&it.id).word(&it.content));
            request.command(3).word("PEXPIRE").word(&ids).word(millis(database.dedupe_window.saturating_mul(2)));
            request.command(1).word("EXEC");
            connection.send_packed_command(request.rest())?;
            meanwhile();
            answer(connection, batch.len() + 3)
        });
        self.request = request;
        self.note(batch.len(), answer?, &appended)
    }

    /// Notes what the server has answered: where the events are, and what time it has.
    fn note(&mut self, events: usize, answer: Value, appended: &[Appended]) -> Result<Vec<SendOutcome>, BackendError> {
        let mut entries = list(answer)?;
        entries.truncate(events);
        if entries.len() < events {
            return Err(unexpected(&Value::Array(entries)));
        }
        let mut far_off = redis::pipe();
        for (entry, Appended { id, at, stream, content }) in entries.into_iter().zip(appended) {
            let entry = text(entry)?;
            let stored = Duration::from_millis(parts(&entry).0);
            self.clock = Some((stored, Instant::now()));
            if at.is_none_or(|at| at.abs_diff(stored) > MAX_DELAY) {
                let (key, index) =
                    (self.database.key(&format!("at:{id}")), format!("{} {entry} {content}", stream + 1));
                far_off.cmd("SET").arg(key).arg(index).arg("PX").arg(millis(self.database.retention)).ignore();
            }
        }
        if !far_off.is_empty() {
            self.link.call(|connection| far_off.query::<()>(connection))?;
        }
        Ok(vec![SendOutcome::Held; events])
    }
}

/// Writes the command that appends an event.
fn write(request: &mut Request, database: &Database, event: &Event) -> Appended {
    let (stream, content) = (database.stream_for(event), content_of(event));
    // From here on its id is seen.
    let id = event.id().to_string();
    request.command(15).word("XADD").word(&database.streams[stream]).word("*").word("event").word(event.to_json());
    request.word("id").word(&id).word("type").word(event.event_type().as_str());
    request.word("source").word(event.source().as_str()).word("status").word("pending");
    request.word("instance_id").word(event.instance_id().unwrap_or_default());
    Appended { at: time_of(&id), id, stream, content }
}

/// The answer to a transaction, after so many others; or the first refusal, once all are read.
fn answer(connection: &mut Connection, others: usize) -> RedisResult<Value> {
    let mut refused = None;
    for _ in 0..others {
        if let Err(error) = connection.recv_response()?.extract_error() {
            refused.get_or_insert(error);
        }
    }
    let last = connection.recv_response()?;
    refused.map_or_else(|| last.extract_error(), Err)
}

impl Mirror for RedisMirror {
    fn send(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        let outcomes = match self.clock {
            Some((server, at)) if batch.iter().all(Event::has_unseen_id) => {
                self.append(batch, server + at.elapsed(), meanwhile)?
            }
            // Once, to learn what time the server has.
            _ => {
                let (outcomes, time) = store(&self.database, &mut self.link, batch)?;
                self.clock = time.map(|time| (time, Instant::now())).or(self.clock);
                outcomes
            }
        };
        replicate(&self.database, &mut self.link)?;
        Ok(outcomes)
    }
}

/// Stores events that are not known.
pub(crate) fn send(database: &Database, link: &mut Link, batch: &[Event]) -> Result<Vec<SendOutcome>, BackendError> {
    let (outcomes, _) = store(database, link, batch)?;
    replicate(database, link)?;
    Ok(outcomes)
}

/// Stores events that are not known; also tells the time of the last one that was.
fn store(
    database: &Database,
    link: &mut Link,
    batch: &[Event],
) -> Result<(Vec<SendOutcome>, Option<Duration>), BackendError> {
    let (window, kept, tolerance) = (millis(database.dedupe_window), millis(database.retention), millis(MAX_DELAY));
    let mut owned = Vec::with_capacity(batch.len());
    for event in batch {
        let id = event.id().to_string();
        let at = time_of(&id).map_or_else(String::new, |at| at.as_millis().to_string());
        owned.push([id, to_json(event), at, content_of(event), (database.stream_for(event) + 1).to_string()]);
    }
    let mut arguments: Vec<&[u8]> = vec![window.as_bytes(), kept.as_bytes(), tolerance.as_bytes()];
    for (event, [id, json, at, content, stream]) in batch.iter().zip(&owned) {
        let (event_type, instance) = (event.event_type().as_str(), event.instance_id().unwrap_or_default());
        let fields = [id, event_type, event.source().as_str(), instance, json, at, content, stream];
        arguments.extend(fields.map(str::as_bytes));
    }
    let (mut outcomes, mut time) = (Vec::with_capacity(batch.len()), None);
    for (answer, [_, _, _, content, _]) in texts(link.run(&scripts::PUBLISH, &arguments)?)?.iter().zip(&owned) {
        outcomes.push(match answer.strip_prefix('=') {
            Some(known) if known == content => SendOutcome::Known,
            Some(_) => SendOutcome::Conflict,
            None => {
                time = Some(Duration::from_millis(parts(answer).0));
                SendOutcome::Held
            }
        });
    }
    Ok((outcomes, time))
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
