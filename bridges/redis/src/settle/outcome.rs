//! The outcomes that need more than an acknowledgement: stored statuses, dead letters, and deferred retries.

use std::time::{Duration, SystemTime};

use eventbroker::provider::{BackendError, LeaseOutcome};
use eventbroker_bridge_kit::dead_letter::{StoredDeadLetter, to_stored};
use redis::Pipeline;
use serde::Serialize;

use crate::scripts::{ADD_DEAD_LETTER, Client, DEFER_RETRY, Entry, Layout, flag, millis, since_epoch, to_json};
use crate::settings::{Redis, Status};
use crate::subscriptions::HeldDelivery;

/// A deferred retry, which is stored as JSON. Each comes from an entry of its own, so no two are equal.
#[derive(Debug, Serialize)]
struct StoredRetry<'a> {
    id: &'a str,
    event: String,
    requeues: u32,
    attempts: u32,
    /// [`StoredErrors`](eventbroker_bridge_kit::dead_letter::StoredErrors) as JSON: scripts pass the text on.
    errors: String,
    /// The stream and the entry of the delivery that failed.
    entry: String,
}

/// How often the delivery was a dead letter before.
fn requeues(client: &mut Client, held: &HeldDelivery) -> Result<u32, BackendError> {
    if held.number > 0 {
        return Ok(0);
    }
    let (stream, entry) = (client.layout.delivery_stream(&held.xgroup, 0), &held.entry);
    let mut found: Vec<Entry> = client.query(redis::cmd("XRANGE").arg(stream).arg(entry).arg(entry))?;
    let fields = found.pop().map(|(_, fields)| fields).unwrap_or_default();
    let requeues = fields.iter().find(|(name, _)| name == "requeues");
    Ok(requeues.and_then(|(_, text)| String::from_utf8_lossy(text).parse().ok()).unwrap_or(0))
}

/// Adds the commands for a handled delivery, except the acknowledgement of an entry of a main stream.
pub(super) fn record_done(
    settings: &Redis,
    layout: &Layout,
    commands: &mut Pipeline,
    held: &HeldDelivery,
    stream: &str,
    attempts: u32,
) {
    let HeldDelivery { xgroup, entry, event, .. } = held;
    let status = || layout.key(&format!("status:{}", event.id()));
    if held.number == 0 {
        commands.cmd("XDEL").arg(stream).arg(entry).ignore();
        commands.cmd("XACK").arg(stream).arg(&**xgroup).arg(entry).ignore();
        commands.cmd("HDEL").arg(status()).arg(format!("again:{xgroup}")).ignore();
    }
    if held.is_suspect {
        let marks = layout.key_of("marks", xgroup);
        commands.cmd("HDEL").arg(marks).arg(format!("{stream} {entry}")).ignore();
    }
    let is_full = settings.status == Status::Full;
    if is_full || attempts > 1 {
        let set = commands.cmd("HSET").arg(status());
        if is_full {
            set.arg(format!("done:{xgroup}")).arg(since_epoch(SystemTime::now()).as_millis() as u64);
        }
        if attempts > 1 {
            set.arg("retries").arg(attempts - 1);
        }
        set.ignore();
        commands.cmd("PEXPIRE").arg(status()).arg(millis(settings.retention)).ignore();
    }
}

/// Stores a dead letter. `name` is the subscription's. False if another member holds the delivery.
pub(super) fn add_dead_letter(
    settings: &Redis,
    client: &mut Client,
    member: &str,
    name: &str,
    held: &HeldDelivery,
    outcome: &LeaseOutcome,
) -> Result<bool, BackendError> {
    let LeaseOutcome::Dead { attempts, error, .. } = outcome else { return Ok(true) };
    let letter = StoredDeadLetter::new(&held.xgroup, name, &held.event, outcome, requeues(client, held)?);
    let Some(letter) = letter else { return Ok(true) };
    let text = serde_json::to_string(&letter).unwrap_or_default();
    let (stream, group) = (client.layout.delivery_stream(&held.xgroup, held.number), &settings.consumer_group);
    let (kept, retries) = (millis(settings.retention), attempts.saturating_sub(1).to_string());
    let removed = flag(held.is_removed);
    let arguments =
        [member, &held.xgroup, &stream, &held.entry, group, &letter.id, error, &kept, &text, &retries, removed];
    client.run(&ADD_DEAD_LETTER, &arguments)
}

/// Stores the retry of a delivery that failed. False if another member holds the delivery.
pub(super) fn defer_retry(
    settings: &Redis,
    client: &mut Client,
    member: &str,
    held: &HeldDelivery,
    outcome: &LeaseOutcome,
) -> Result<bool, BackendError> {
    let LeaseOutcome::Deferred { delay, attempts, errors } = outcome else { return Ok(true) };
    let (stream, id) = (client.layout.delivery_stream(&held.xgroup, held.number), held.event.id().to_string());
    let retry = StoredRetry {
        id: &id,
        event: to_json(&held.event),
        requeues: requeues(client, held)?,
        attempts: *attempts,
        errors: serde_json::to_string(&to_stored(errors)).unwrap_or_default(),
        entry: format!("{stream} {}", held.entry),
    };
    let retry = serde_json::to_string(&retry).unwrap_or_default();
    // A subscription that no member serves is removed this long after the retry is due.
    let kept = millis(delay.saturating_add(settings.idle_expiry).saturating_add(settings.retention));
    // Rounded up: a retry is never early.
    let delay = millis(delay.saturating_add(Duration::from_nanos(999_999)));
    let (retries, removed) = (attempts.saturating_sub(1).to_string(), flag(held.is_removed));
    let arguments = [member, &held.xgroup, &stream, &held.entry, &id, &delay, &retry, &kept, &retries, removed];
    client.run(&DEFER_RETRY, &arguments)
}
