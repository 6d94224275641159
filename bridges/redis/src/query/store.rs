//! Looking events up. The stream is the store: an event is found by the time in its id, and its status follows from what the consumer
//! groups have acknowledged; only what is not seen there has a key. So a listing looks at the stream, and at no more than [`SCAN`]
//! entries at a time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventbroker::provider::{BackendError, EventStore, SendOutcome, StatusChange};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId, Status};
use parking_lot::Mutex;
use redis::Value;

use crate::publish::mirror;
use crate::scripts;
use crate::scripts::entry::{Group, bytes, earliest, from_json, list, made, number, since_epoch, text};
use crate::scripts::merge_scan::{Found, Step, Walk};
use crate::transport::link::{Database, Link, millis};

/// Entries that one listing looks at; its cursor goes on behind them.
const SCAN: usize = 10_000;
/// How far the time in an id and the time of its entry may lie apart: clocks differ, and a buffer may hold events back. What lies further
/// apart has an index entry, and is listed by when it was stored.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(5);

pub(crate) struct RedisStore {
    database: Arc<Database>,
    link: Mutex<Link>,
}

impl RedisStore {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), link: Mutex::new(Link::new(database)) }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.database).finish()
    }
}

/// Where an event is, and the event without its status.
pub(crate) fn find(link: &mut Link, id: &EventId) -> Result<Option<Found>, BackendError> {
    let name = id.to_string();
    let time = made(&name).map(|made| (made.at.as_millis().to_string(), millis(MAX_DELAY)));
    let mut arguments: Vec<&[u8]> = vec![name.as_bytes()];
    if let Some((at, off)) = &time {
        arguments.extend([at.as_bytes(), off.as_bytes()]);
    }
    let found = list(link.run(&scripts::FIND_ENTRY, &arguments)?)?;
    let Ok([stream, entry, event]) = <[Value; 3]>::try_from(found) else { return Ok(None) };
    let number = number(stream)?.try_into().unwrap_or(0);
    // What is no event is not shown.
    Ok(from_json(&bytes(event)?).ok().map(|event| (number, text(entry).unwrap_or_default(), event)))
}

/// The events of entries with their statuses.
pub(crate) fn with_statuses(link: &mut Link, found: Vec<Found>) -> Result<Vec<Event>, BackendError> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let texts: Vec<[String; 2]> =
        found.iter().map(|(number, _, event)| [event.id().to_string(), number.to_string()]).collect();
    let mut arguments: Vec<&[u8]> = Vec::new();
    for ((_, entry, event), [id, number]) in found.iter().zip(&texts) {
        let instance = event.instance_id().unwrap_or_default();
        arguments.extend([entry, event.event_type().as_str(), id, instance, number].map(str::as_bytes));
    }
    let answers = list(link.run(&scripts::READ_STATUSES, &arguments)?)?;
    let mut events = Vec::with_capacity(found.len());
    for ((_, _, event), answer) in found.into_iter().zip(answers) {
        let mut answer = list(answer)?.into_iter();
        let mut next = || answer.next().unwrap_or(Value::Nil);
        let status: Status = text(next())?.parse().unwrap_or(Status::Pending);
        let retries = number(next())?.try_into().unwrap_or(0);
        let error = text(next()).ok().filter(|error| !error.is_empty());
        let ended = Duration::from_millis(number(next())?.unsigned_abs());
        let completed = (!ended.is_zero()).then(|| SystemTime::UNIX_EPOCH + ended);
        events.push(event.with_progress(status, retries, None, completed, error));
    }
    Ok(events)
}

impl EventStore for RedisStore {
    fn put(&self, event: &Event) -> Result<(), BackendError> {
        let outcomes = mirror::send(&self.database, &mut self.link.lock(), std::slice::from_ref(event))?;
        match outcomes.into_iter().next() {
            Some(SendOutcome::Conflict) => {
                Err(BackendError::Refused(format!("event {} is known with other content", event.id())))
            }
            _ => Ok(()),
        }
    }

    fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError> {
        let mut link = self.link.lock();
        let found = find(&mut link, id)?;
        Ok(with_statuses(&mut link, found.into_iter().collect())?.pop())
    }

    fn list(&self, filter: &Filter) -> Result<Page, BackendError> {
        let mut link = self.link.lock();
        let bound = |time: Option<SystemTime>| time.map(since_epoch);
        let from = bound(filter.created_from)
            .map_or("-".to_owned(), |at| at.saturating_sub(MAX_DELAY).as_millis().to_string());
        let to = bound(filter.created_to).map_or("+".to_owned(), |at| (at + MAX_DELAY).as_millis().to_string());
        let mut walk = Walk::new(&self.database, filter.order, &from, &to);
        if let Some(after) = &filter.after {
            let Some((number, entry, _)) = find(&mut link, after)? else { return Ok(Page::new(Vec::new(), None)) };
            walk = walk.behind(&self.database, &mut link, number, &entry)?;
        }
        // The order is that of the streams: an id may come before one that is smaller.
        let wanted = Filter { after: None, status: None, ..filter.clone() };
        let (mut page, mut scanned, mut last_id) = (Vec::new(), 0, None);
        loop {
            let Step { events: found, entries, more } = walk.step(&self.database, &mut link)?;
            scanned += entries;
            last_id = found.last().map(|(_, _, event)| event.id().clone()).or(last_id);
            let matching = found.into_iter().filter(|(_, _, event)| wanted.matches(event)).collect();
            let known = with_statuses(&mut link, matching)?;
            page.extend(known.into_iter().filter(|event| filter.status.is_none_or(|status| status == event.status())));
            if page.len() >= filter.effective_limit() {
                page.truncate(filter.effective_limit());
                let next = page.last().map(|event: &Event| event.id().clone());
                return Ok(Page::new(page, next));
            }
            if !more {
                return Ok(Page::new(page, None));
            }
            if scanned >= SCAN {
                return Ok(Page::new(page, last_id));
            }
        }
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError> {
        if self.database.status == crate::Status::Off {
            return Ok(());
        }
        let kept = millis(self.database.retention);
        let told = changes.iter().map(|change| (change.id.to_string(), change.retry_count.to_string()));
        let told: Vec<(String, String)> = told.collect();
        let mut arguments: Vec<&[u8]> = vec![kept.as_bytes()];
        for (change, (id, retries)) in changes.iter().zip(&told) {
            let error = change.error.as_deref().unwrap_or_default();
            arguments.extend([id.as_str(), change.status.as_str(), error, retries].map(str::as_bytes));
        }
        self.link.lock().run(&scripts::RECORD_OUTCOME, &arguments).map(drop)
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        let mut link = self.link.lock();
        let Some((number_of, entry, _)) = find(&mut link, id)? else { return Ok(false) };
        let (id, stream) = (id.to_string(), &self.database.streams[number_of - 1]);
        let arguments = [entry.as_bytes(), id.as_bytes()];
        let removed = link.call(|it| scripts::DELETE_ENTRY.run(it, &[&self.database.prefix, stream], &arguments))?;
        Ok(number(removed)? > 0)
    }

    /// What is open is counted among the first [`SCAN`] entries that some subscription has not acknowledged.
    fn stats(&self) -> Result<StoreStats, BackendError> {
        let (mut link, database) = (self.link.lock(), &self.database);
        let mut stats = StoreStats::default();
        stats.failed = link.call(|it| redis::cmd("ZCARD").arg(database.key("failed")).query(it))?;
        let mut walk = Walk::new(database, Order::OldestFirst, "-", "+");
        for (stream, range) in database.streams.iter().zip(&mut walk.ranges) {
            stats.events += link.call(|it| redis::cmd("XLEN").arg(stream).query::<u64>(it))?;
            // Where nobody reads, nothing is open.
            range.from = first_open(&mut link, stream)?.unwrap_or_else(|| "+".to_owned());
        }
        let mut scanned = 0;
        while scanned < SCAN {
            let Step { events, entries, more } = walk.step(database, &mut link)?;
            scanned += entries;
            for event in with_statuses(&mut link, events)? {
                match event.status() {
                    Status::Pending => stats.pending += 1,
                    Status::Processing => stats.processing += 1,
                    _ => {}
                }
            }
            if !more {
                break;
            }
        }
        stats.completed = stats.events.saturating_sub(stats.pending + stats.processing + stats.failed);
        Ok(stats)
    }
}

/// The consumer groups of a stream; none if it is not there.
pub(crate) fn groups(link: &mut Link, stream: &str) -> Result<Vec<Group>, BackendError> {
    match link.call(|it| redis::cmd("XINFO").arg("GROUPS").arg(stream).query(it)) {
        Err(error) if error.to_string().contains("no such key") => Ok(Vec::new()),
        groups => Group::all(groups?),
    }
}

/// From which entry on some subscription may not have acknowledged everything; nothing if nobody reads.
pub(crate) fn first_open(link: &mut Link, stream: &str) -> Result<Option<String>, BackendError> {
    let mut first: Option<String> = None;
    for group in groups(link, stream)? {
        let mut next = group.last;
        if group.pending > 0 {
            let mut oldest = redis::cmd("XPENDING");
            oldest.arg(stream).arg(&group.name).arg("-").arg("+").arg(1);
            let oldest: Value = link.call(|it| oldest.query(it))?;
            if let Some(oldest) = list(oldest)?.into_iter().next() {
                next = list(oldest)?.into_iter().next().map_or(Ok(next), text)?;
            }
        }
        first = Some(first.map_or(next.clone(), |first| earliest(first, next)));
    }
    Ok(first)
}
