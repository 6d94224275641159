//! Looking events up. The stream is the store: an event is found by the time in its id, and its status follows from what the consumer
//! groups have acknowledged; only what is not seen there has a key. So a listing looks at the stream, and at no more than [`SCAN`]
//! entries at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::{BackendError, EventStore, SendOutcome, StatusChange};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId, Status};
use parking_lot::Mutex;
use redis::Value;

use crate::connection::{Database, Link, millis};
use crate::entry::{Group, bytes, earliest, entries, event_of, from_json, list, made, number, since_epoch, text};
use crate::{mirror, scripts};

/// Entries that one listing looks at; its cursor goes on behind them.
const SCAN: usize = 10_000;
/// Entries of one answer.
const STEP: usize = 500;
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

/// The entry of an event, and the event without its status.
pub(crate) fn find(link: &mut Link, id: &EventId) -> Result<Option<(String, Event)>, BackendError> {
    let name = id.to_string();
    let time = made(&name).map(|made| (made.at.as_millis().to_string(), millis(MAX_DELAY)));
    let mut arguments: Vec<&[u8]> = vec![name.as_bytes()];
    if let Some((at, off)) = &time {
        arguments.extend([at.as_bytes(), off.as_bytes()]);
    }
    let found = list(link.run(&scripts::FIND, &arguments)?)?;
    let Ok([_, entry, event]) = <[Value; 3]>::try_from(found) else { return Ok(None) };
    // What is no event is not shown.
    Ok(from_json(&bytes(event)?).ok().map(|event| (text(entry).unwrap_or_default(), event)))
}

/// The events of entries with their statuses.
pub(crate) fn with_statuses(link: &mut Link, found: Vec<(String, Event)>) -> Result<Vec<Event>, BackendError> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = found.iter().map(|(_, event)| event.id().to_string()).collect();
    let mut arguments: Vec<&[u8]> = Vec::new();
    for ((entry, event), id) in found.iter().zip(&ids) {
        let instance = event.instance_id().unwrap_or_default();
        arguments.extend([entry.as_str(), event.event_type().as_str(), id, instance].map(str::as_bytes));
    }
    let answers = list(link.run(&scripts::STATUS, &arguments)?)?;
    let mut events = Vec::with_capacity(found.len());
    for ((_, event), answer) in found.into_iter().zip(answers) {
        let mut answer = list(answer)?.into_iter();
        let mut next = || answer.next().unwrap_or(Value::Nil);
        let status: Status = text(next())?.parse().unwrap_or(Status::Pending);
        let retries = number(next())?.try_into().unwrap_or(0);
        let error = text(next()).ok().filter(|error| !error.is_empty());
        events.push(event.with_progress(status, retries, None, None, error));
    }
    Ok(events)
}

/// The next entries of the stream in an order, and where to go on: with those that are no events left out.
fn step(link: &mut Link, stream: &str, order: Order, from: &str, to: &str) -> Result<Step, BackendError> {
    let (verb, first, second) = match order {
        Order::OldestFirst => ("XRANGE", from, to),
        Order::NewestFirst => ("XREVRANGE", to, from),
    };
    let answer: Value =
        link.call(|it| redis::cmd(verb).arg(stream).arg(first).arg(second).arg("COUNT").arg(STEP).query(it))?;
    let found = entries(answer)?;
    let last = found.last().map(|(name, _)| name.clone()).filter(|_| found.len() == STEP);
    let events = found.into_iter().filter_map(|(name, fields)| Some((name, event_of(&fields).ok()?))).collect();
    Ok(Step { events, last })
}

struct Step {
    events: Vec<(String, Event)>,
    /// The last entry, if there may be more behind it.
    last: Option<String>,
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
        let stream = &self.database.stream;
        let bound = |time: Option<std::time::SystemTime>| time.map(since_epoch);
        let (mut from, mut to) = (
            bound(filter.created_from)
                .map_or("-".to_owned(), |at| at.saturating_sub(MAX_DELAY).as_millis().to_string()),
            bound(filter.created_to).map_or("+".to_owned(), |at| (at + MAX_DELAY).as_millis().to_string()),
        );
        if let Some(after) = &filter.after {
            let Some((entry, _)) = find(&mut link, after)? else {
                return Ok(Page::new(Vec::new(), None));
            };
            let beyond = format!("({entry}");
            *(if filter.order == Order::OldestFirst { &mut from } else { &mut to }) = beyond;
        }
        // The order is that of the stream: an id may come before one that is smaller.
        let wanted = Filter { after: None, status: None, ..filter.clone() };
        let (mut page, mut scanned, mut last_id) = (Vec::new(), 0, None);
        loop {
            let Step { events, last } = step(&mut link, stream, filter.order, &from, &to)?;
            scanned += events.len();
            let ids: Vec<EventId> = events.iter().map(|(_, event)| event.id().clone()).collect();
            let matching = events.into_iter().filter(|(_, event)| wanted.matches(event)).collect();
            let known = with_statuses(&mut link, matching)?;
            page.extend(known.into_iter().filter(|event| filter.status.is_none_or(|status| status == event.status())));
            last_id = ids.last().cloned().or(last_id);
            if page.len() >= filter.effective_limit() {
                page.truncate(filter.effective_limit());
                let next = page.last().map(|event: &Event| event.id().clone());
                return Ok(Page::new(page, next));
            }
            match last {
                None => return Ok(Page::new(page, None)),
                Some(_) if scanned >= SCAN => return Ok(Page::new(page, last_id)),
                Some(last) if filter.order == Order::OldestFirst => from = format!("({last}"),
                Some(last) => to = format!("({last}"),
            }
        }
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError> {
        let kept = millis(self.database.retention);
        let told = changes.iter().map(|change| (change.id.to_string(), change.retry_count.to_string()));
        let told: Vec<(String, String)> = told.collect();
        let mut arguments: Vec<&[u8]> = vec![kept.as_bytes()];
        for (change, (id, retries)) in changes.iter().zip(&told) {
            let error = change.error.as_deref().unwrap_or_default();
            arguments.extend([id.as_str(), change.status.as_str(), error, retries].map(str::as_bytes));
        }
        self.link.lock().run(&scripts::TELL, &arguments).map(drop)
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        let mut link = self.link.lock();
        let Some((entry, _)) = find(&mut link, id)? else { return Ok(false) };
        let id = id.to_string();
        Ok(number(link.run(&scripts::DELETE, &[entry.as_bytes(), id.as_bytes()])?)? > 0)
    }

    /// What is open is counted among the first [`SCAN`] entries that some subscription has not acknowledged.
    fn stats(&self) -> Result<StoreStats, BackendError> {
        let mut link = self.link.lock();
        let stream = &self.database.stream;
        let mut stats = StoreStats::default();
        stats.events = link.call(|it| redis::cmd("XLEN").arg(stream).query(it))?;
        stats.failed = link.call(|it| redis::cmd("ZCARD").arg(self.database.key("failed")).query(it))?;
        if let Some(mut from) = first_open(&mut link, stream)? {
            let mut scanned = 0;
            loop {
                let Step { events, last } = step(&mut link, stream, Order::OldestFirst, &from, "+")?;
                scanned += events.len();
                for event in with_statuses(&mut link, events)? {
                    match event.status() {
                        Status::Pending => stats.pending += 1,
                        Status::Processing => stats.processing += 1,
                        _ => {}
                    }
                }
                match last {
                    Some(last) if scanned < SCAN => from = format!("({last}"),
                    _ => break,
                }
            }
        }
        stats.completed = stats.events.saturating_sub(stats.pending + stats.processing + stats.failed);
        Ok(stats)
    }
}

/// From which entry on some subscription may not have acknowledged everything; nothing if nobody reads.
pub(crate) fn first_open(link: &mut Link, stream: &str) -> Result<Option<String>, BackendError> {
    let groups: Value = match link.call(|it| redis::cmd("XINFO").arg("GROUPS").arg(stream).query(it)) {
        Err(error) if error.to_string().contains("no such key") => return Ok(None),
        groups => groups?,
    };
    let mut first: Option<String> = None;
    for group in Group::all(groups)? {
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
