//! The way out: a batch of events is one script, so that nobody comes between looking for an id and storing it.

use std::collections::HashMap;
use std::sync::Arc;

use eventbroker::Event;
use eventbroker::provider::{BackendError, Mirror, SendOutcome};

use crate::connection::{Database, Link, millis};
use crate::entry::{entries, event_of, texts, time_of, to_json};
use crate::scripts;
use crate::store::MAX_DELAY;

#[derive(Debug)]
pub(crate) struct RedisMirror {
    database: Arc<Database>,
    link: Link,
}

impl RedisMirror {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), link: Link::new(database) }
    }
}

impl Mirror for RedisMirror {
    fn send(&mut self, batch: &[Event], _meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        send(&self.database, &mut self.link, batch)
    }
}

/// Stores events that are not known.
pub(crate) fn send(database: &Database, link: &mut Link, batch: &[Event]) -> Result<Vec<SendOutcome>, BackendError> {
    let (window, kept) = (millis(database.dedupe_window), millis(database.retention));
    let texts_of = |event: &Event| {
        let at = time_of(event.id()).map_or_else(String::new, |at| at.as_millis().to_string());
        (event.id().to_string(), to_json(event), at)
    };
    let owned: Vec<(String, String, String)> = batch.iter().map(texts_of).collect();
    let tolerance = millis(MAX_DELAY);
    let mut arguments: Vec<&[u8]> = vec![window.as_bytes(), kept.as_bytes(), tolerance.as_bytes()];
    for (event, (id, json, at)) in batch.iter().zip(&owned) {
        let fields = [
            id.as_str(),
            event.event_type().as_str(),
            event.source().as_str(),
            event.instance_id().unwrap_or_default(),
            json,
            at,
        ];
        arguments.extend(fields.map(str::as_bytes));
    }
    let answers = texts(link.run(&scripts::PUBLISH, &arguments)?)?;
    replicate(database, link)?;
    let known: Vec<&str> = answers.iter().filter_map(|it| it.strip_prefix('=')).collect();
    let there = if known.is_empty() { HashMap::new() } else { look_up(link, &database.stream, &known)? };
    let outcome = |(event, answer): (&Event, &String)| match answer.strip_prefix('=').map(|entry| there.get(entry)) {
        None => SendOutcome::Held,
        Some(Some(known)) if !known.same_content(event) => SendOutcome::Conflict,
        // Also if it was handled and is not there any more.
        Some(_) => SendOutcome::Known,
    };
    Ok(batch.iter().zip(&answers).map(outcome).collect())
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

/// The events of entries.
fn look_up(link: &mut Link, stream: &str, names: &[&str]) -> Result<HashMap<String, Event>, BackendError> {
    let mut pipeline = redis::pipe();
    names.iter().for_each(|name| _ = pipeline.cmd("XRANGE").arg(stream).arg(*name).arg(*name));
    let answers: Vec<redis::Value> = link.call(|connection| pipeline.query(connection))?;
    let mut found = HashMap::new();
    for answer in answers {
        for (name, fields) in entries(answer)? {
            found.extend(event_of(&fields).ok().map(|event| (name, event)));
        }
    }
    Ok(found)
}
