//! How a delivery ends that is more than acknowledged: what is written down of one that was handled, dead letters, and retries that wait here.
//! What became of which lease is told in [`settler`](crate::settle::settler).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventbroker::dead_letter::AttemptError;
use eventbroker::provider::{BackendError, LeaseOutcome};
use jiff::Timestamp;
use redis::{Pipeline, Value};
use serde::{Deserialize, Serialize};

use crate::scripts::entry::{entries, number, since_epoch, to_json};
use crate::settle::settler::RedisSettler;
use crate::transport::link::{Held, millis};
use crate::{Status, scripts};

/// What the attempts at a delivery have failed of, as it is stored: which attempt, when, and of what.
pub(crate) type Errors = Vec<(u32, Timestamp, String)>;

/// A dead letter, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) unit: String,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    pub(crate) errors: Errors,
    pub(crate) dead_at: Timestamp,
    pub(crate) requeues: u32,
}

/// A retry that waits, as it is stored. No two are the same: each comes from an entry of its own.
#[derive(Debug, Serialize)]
struct Later<'a> {
    id: &'a str,
    event: String,
    requeues: u32,
    attempts: u32,
    /// As JSON, because a script hands them on as they are.
    errors: String,
    /// The stream and the entry that it was last.
    entry: String,
}

fn to_stored(errors: &[AttemptError]) -> Errors {
    let time = |time: SystemTime| Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    errors.iter().map(|it| (it.attempt, time(it.at), it.message.clone())).collect()
}

pub(crate) fn from_stored(errors: Errors) -> Vec<AttemptError> {
    errors.into_iter().map(|(attempt, at, message)| AttemptError::new(attempt, at.into(), message)).collect()
}

fn flag(it: bool) -> &'static str {
    if it { "1" } else { "0" }
}

impl RedisSettler {
    /// How often the delivery was a dead letter before.
    fn requeues(&mut self, held: &Held) -> Result<u32, BackendError> {
        if held.number > 0 {
            return Ok(0);
        }
        let (key, entry) = (self.database.stream_of(held), held.entry.clone());
        let found: Value = self.link.call(|it| redis::cmd("XRANGE").arg(key).arg(&entry).arg(&entry).query(it))?;
        let fields = entries(found)?.pop().map(|(_, fields)| fields).unwrap_or_default();
        let requeues = fields.iter().find(|(name, _)| name == "requeues");
        Ok(requeues.and_then(|(_, text)| String::from_utf8_lossy(text).parse().ok()).unwrap_or(0))
    }

    /// What is written down of a delivery that was handled, beside that it is acknowledged.
    pub(crate) fn note_done(&self, done: &mut Pipeline, held: &Held, key: &str, attempts: u32) {
        let database = &self.database;
        let status = || database.key(&format!("status:{}", held.event.id()));
        if held.number == 0 {
            done.cmd("XDEL").arg(key).arg(&held.entry).ignore();
            done.cmd("XACK").arg(key).arg(&*held.unit).arg(&held.entry).ignore();
            done.cmd("HDEL").arg(status()).arg(format!("again:{}", held.unit)).ignore();
        }
        if held.suspect {
            let marks = database.key(&format!("marks:{}", held.unit));
            done.cmd("HDEL").arg(marks).arg(format!("{key} {}", held.entry)).ignore();
        }
        let is_full = database.status == Status::Full;
        if is_full || (attempts > 1 && database.status == Status::Failures) {
            let set = done.cmd("HSET").arg(status());
            if is_full {
                set.arg(format!("done:{}", held.unit)).arg(since_epoch(SystemTime::now()).as_millis() as u64);
            }
            if attempts > 1 {
                set.arg("retries").arg(attempts - 1);
            }
            set.ignore();
            done.cmd("PEXPIRE").arg(status()).arg(millis(database.retention)).ignore();
        }
    }

    /// Makes a delivery a dead letter. False if it was lost before.
    pub(crate) fn bury(&mut self, held: &Held, outcome: &LeaseOutcome) -> Result<bool, BackendError> {
        let LeaseOutcome::Dead { reason, attempts, error, errors } = outcome else { return Ok(true) };
        let database = Arc::clone(&self.database);
        let name = database.served.lock().iter().find(|(_, it)| it.unit == held.unit).map(|(name, _)| name.to_string());
        let letter = Letter {
            unit: held.unit.to_string(),
            name: name.unwrap_or_default(),
            id: held.event.id().to_string(),
            event: to_json(&held.event),
            reason: reason.as_str().to_owned(),
            attempts: *attempts,
            errors: to_stored(errors),
            dead_at: Timestamp::now(),
            requeues: self.requeues(held)?,
        };
        let letter = serde_json::to_string(&letter).unwrap_or_default();
        let (gone, told) = (flag(held.gone), flag(database.status != Status::Off));
        let (member, key, id) = (database.member(), database.stream_of(held), held.event.id().to_string());
        let (kept, retries) = (millis(database.retention), attempts.saturating_sub(1).to_string());
        let arguments = [
            &*member,
            &held.unit,
            &key,
            &held.entry,
            &database.group,
            &id,
            error,
            &kept,
            &letter,
            &retries,
            gone,
            told,
        ]
        .map(str::as_bytes);
        Ok(number(self.link.run(&scripts::ADD_DEAD_LETTER, &arguments)?)? == 1)
    }

    /// Has a delivery that failed wait until its retry is due. False if it was lost before.
    pub(crate) fn defer(&mut self, held: &Held, outcome: &LeaseOutcome) -> Result<bool, BackendError> {
        let LeaseOutcome::Deferred { delay, attempts, errors } = outcome else { return Ok(true) };
        let database = Arc::clone(&self.database);
        let (member, key, id) = (database.member(), database.stream_of(held), held.event.id().to_string());
        let later = Later {
            id: &id,
            event: to_json(&held.event),
            requeues: self.requeues(held)?,
            attempts: *attempts,
            errors: serde_json::to_string(&to_stored(errors)).unwrap_or_default(),
            entry: format!("{key} {}", held.entry),
        };
        let later = serde_json::to_string(&later).unwrap_or_default();
        let (gone, told) = (flag(held.gone), flag(database.status != Status::Off));
        // Whoever has not served the subscription for so long after it was due has lost it.
        let kept = millis(delay.saturating_add(database.idle_expiry).saturating_add(database.retention));
        // Not a moment before: a part of a millisecond counts as one.
        let delay = millis(delay.saturating_add(Duration::from_nanos(999_999)));
        let retries = attempts.saturating_sub(1).to_string();
        let arguments = [&*member, &held.unit, &key, &held.entry, &id, &delay, &later, &kept, &retries, gone, told]
            .map(str::as_bytes);
        Ok(number(self.link.run(&scripts::DEFER_RETRY, &arguments)?)? == 1)
    }
}
