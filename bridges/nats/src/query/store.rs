//! Events and their statuses, read from the stream. Nothing looks at more of it than [`SCAN`] messages at a time, and an event is found by
//! the time in its id, or by a note if that does not tell.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventbroker::provider::{BackendError, EventStore, SendOutcome, StatusChange};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId, Status};
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::jetstream::consumer as progress;
use crate::jetstream::entry::{event_of, id_of, time_of};
use crate::jetstream::kv::read;
use crate::jetstream::message::{self as js, Entry, Which};
use crate::jetstream::scan::{self as range, Begin, Range};
use crate::jetstream::stream;
use crate::provider::backend::Database;
use crate::publish::mirror;
use crate::query::status::{FAILED, Note, STATUS, note, with_statuses};
use crate::subscriptions as registry;
use crate::transport::runtime::Session;

/// The kind of the notes that say where an event is.
pub(crate) const AT: &str = "at";
/// Messages that one listing looks at; its cursor goes on behind them.
pub(crate) const SCAN: usize = 10_000;
/// Messages of one step.
const STEP: usize = 500;
/// How far the time in an id and the time at which it was stored may lie apart: clocks differ, and a buffer may hold events back. What lies
/// further apart has a note of its own.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(5);
/// How far they mostly lie apart.
const USUAL_DELAY: Duration = Duration::from_millis(50);
/// Messages that are looked at to find one.
const SEARCH: usize = 200_000;

pub(crate) struct NatsStore {
    database: Arc<Database>,
}

impl NatsStore {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database) }
    }
}

impl fmt::Debug for NatsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsStore").field(&self.database).finish()
    }
}

/// The message of an event, and the event without its status.
pub(crate) async fn find(
    session: &Session,
    database: &Database,
    id: &EventId,
) -> Result<Option<(u64, Event)>, BackendError> {
    let noted = database.state.get(session, &database.state.of_event(AT, id)).await?;
    let noted = noted.as_ref().and_then(read::<u64>);
    for place in [database.recent.remembered(id), noted].into_iter().flatten() {
        let found = js::get(session, database.stream(), Which::Number(place)).await?;
        let event = found.and_then(|entry| event_of(database.prefix(), &entry)).filter(|event| event.id() == id);
        if let Some(event) = event {
            return Ok(Some((place, event)));
        }
    }
    let Some(at) = time_of(id) else { return Ok(None) };
    let text = id.to_string();
    let usual = at.checked_sub(USUAL_DELAY).unwrap_or(at);
    let earliest = at.checked_sub(MAX_DELAY).unwrap_or(SystemTime::UNIX_EPOCH);
    for (from, to) in [(usual, at + MAX_DELAY), (earliest, usual)] {
        let Some(place) = search(session, database, &text, from, to).await? else { continue };
        let found = js::get(session, database.stream(), Which::Number(place)).await?;
        let event = found.and_then(|entry| event_of(database.prefix(), &entry));
        if let Some(event) = event {
            database.recent.remember(id, place);
            return Ok(Some((place, event)));
        }
    }
    Ok(None)
}

/// The message of an event among those that were stored in a span of time. Only their heads are read.
async fn search(
    session: &Session,
    database: &Database,
    id: &str,
    from: SystemTime,
    to: SystemTime,
) -> Result<Option<u64>, BackendError> {
    let mut range = Range::open(session, database.stream(), "", Begin::Time(from), true).await?;
    let (mut seen, mut found) = (0, None);
    while found.is_none() && seen < SEARCH {
        let step = range.next(session, STEP).await?;
        seen += step.len();
        found = step.iter().find(|entry| id_of(&entry.headers) == Some(id)).map(|entry| entry.sequence);
        if step.last().is_none_or(|last| last.stored_at > to) {
            break;
        }
    }
    range.close(session).await;
    Ok(found)
}

/// A listing: what is looked at in which order.
struct Scan {
    order: Order,
    /// The next message to look at, and where it ends; both are looked at.
    from: u64,
    to: u64,
    range: Option<Range>,
}

impl Scan {
    /// The next messages in the order; none at the end.
    async fn step(&mut self, session: &Session, database: &Database) -> Result<Vec<Entry>, BackendError> {
        if self.from == 0 || self.to == 0 || self.from > self.to {
            return Ok(Vec::new());
        }
        if self.order == Order::OldestFirst {
            let mut found = self.read(session, database, self.from).await?;
            found.retain(|entry| entry.sequence <= self.to);
            self.from = found.last().map_or(self.to + 1, |last| last.sequence + 1);
            return Ok(found);
        }
        loop {
            let first = self.to.saturating_sub(STEP as u64 - 1).max(self.from);
            let mut range = Range::open(session, database.stream(), "", Begin::Number(first), false).await?;
            let mut found = range.next(session, (self.to - first + 1) as usize).await?;
            range.close(session).await;
            found.retain(|entry| entry.sequence <= self.to);
            found.reverse();
            self.to = first - 1;
            // Where everything was removed, there may still be something before.
            if !found.is_empty() || self.to < self.from {
                return Ok(found);
            }
        }
    }

    async fn read(&mut self, session: &Session, database: &Database, from: u64) -> Result<Vec<Entry>, BackendError> {
        let range = match &mut self.range {
            Some(range) => range,
            none => none.insert(Range::open(session, database.stream(), "", Begin::Number(from), false).await?),
        };
        range.next(session, STEP).await
    }

    async fn close(self, session: &Session) {
        if let Some(range) = self.range {
            range.close(session).await;
        }
    }
}

async fn list(session: Session, database: Arc<Database>, filter: Filter) -> Result<Page, BackendError> {
    let state = stream::info(&session, database.stream()).await?.unwrap_or_default();
    let number = |name: &str| state["state"][name].as_u64().unwrap_or(0);
    let (mut from, mut to) = (number("first_seq").max(1), number("last_seq"));
    if let Some(time) = filter.created_from.and_then(|at| at.checked_sub(MAX_DELAY)) {
        from = from.max(first_since(&session, &database, time).await?);
    }
    if let Some(time) = filter.created_to {
        to = to.min(first_since(&session, &database, time + MAX_DELAY).await?.saturating_sub(1));
    }
    if let Some(after) = &filter.after {
        let Some((place, _)) = find(&session, &database, after).await? else { return Ok(Page::new(Vec::new(), None)) };
        match filter.order {
            Order::OldestFirst => from = from.max(place + 1),
            Order::NewestFirst => to = to.min(place.saturating_sub(1)),
        }
    }
    // The order is that of the stream: an id may come before one that is smaller.
    let wanted = Filter { after: None, status: None, ..filter.clone() };
    let mut scan = Scan { order: filter.order, from, to, range: None };
    let (mut page, mut scanned, mut last) = (Vec::new(), 0, None);
    let page = loop {
        let step = scan.step(&session, &database).await?;
        if step.is_empty() {
            break Page::new(page, None);
        }
        scanned += step.len();
        let events = step.into_iter().filter_map(|it| Some((it.sequence, event_of(database.prefix(), &it)?)));
        let events: Vec<(u64, Event)> = events.collect();
        last = events.last().map(|(place, event)| (event.id().clone(), *place)).or(last);
        let places: Vec<(EventId, u64)> = events.iter().map(|(place, event)| (event.id().clone(), *place)).collect();
        let matching = events.into_iter().filter(|(_, event)| wanted.matches(event)).collect();
        let known = with_statuses(&session, &database, matching).await?;
        page.extend(known.into_iter().filter(|event| filter.status.is_none_or(|status| status == event.status())));
        if page.len() >= filter.effective_limit() {
            page.truncate(filter.effective_limit());
            let next = page.last().map(|event: &Event| event.id().clone());
            last = places.into_iter().find(|(id, _)| Some(id) == next.as_ref());
            break Page::new(page, next);
        }
        if scanned >= SCAN {
            break Page::new(page, last.as_ref().map(|(id, _)| id.clone()));
        }
    };
    scan.close(&session).await;
    if let Some((id, place)) = last {
        // Where the next page begins.
        database.recent.remember(&id, place);
    }
    Ok(page)
}

/// The first message that was stored at a time or later, or the one behind the last.
pub(crate) async fn first_since(session: &Session, database: &Database, time: SystemTime) -> Result<u64, BackendError> {
    let range = Range::open(session, database.stream(), "", Begin::Time(time), true).await?;
    let first = range.first();
    range.close(session).await;
    Ok(first)
}

/// From which message on some subscription may not have acknowledged everything; nothing if nobody reads, or everything is.
pub(crate) async fn first_open(session: &Session, database: &Database) -> Result<Option<u64>, BackendError> {
    let known = registry::all(session, database).await?;
    let legs = known.iter().flat_map(|(unit, info)| info.legs(database, unit)).filter(|leg| !leg.again);
    let legs: Vec<registry::Leg> = legs.collect();
    let progress = progress::progress(session, &legs).await?;
    let open = |it: progress::Progress| match (it.open, it.waiting) {
        (0, 0) => None,
        (0, _) => Some(it.delivered + 1),
        _ => Some(it.floor + 1),
    };
    Ok(progress.into_iter().map(Option::unwrap_or_default).filter_map(open).min())
}

async fn stats(session: Session, database: Arc<Database>) -> Result<StoreStats, BackendError> {
    let mut stats = StoreStats::default();
    let info = stream::info(&session, database.stream()).await?.unwrap_or(Value::Null);
    stats.events = info["state"]["messages"].as_u64().unwrap_or(0);
    let last = info["state"]["last_seq"].as_u64().unwrap_or(0);
    stats.failed = range::count(&session, &database.state.stream, &database.state.key(FAILED, "*")).await?;
    if let Some(from) = first_open(&session, &database).await? {
        let mut scan = Scan { order: Order::OldestFirst, from, to: last, range: None };
        let mut scanned = 0;
        while scanned < SCAN {
            let step = scan.step(&session, &database).await?;
            if step.is_empty() {
                break;
            }
            scanned += step.len();
            let events = step.into_iter().filter_map(|it| Some((it.sequence, event_of(database.prefix(), &it)?)));
            for event in with_statuses(&session, &database, events.collect()).await? {
                match event.status() {
                    Status::Pending => stats.pending += 1,
                    Status::Processing => stats.processing += 1,
                    _ => {}
                }
            }
        }
        scan.close(&session).await;
    }
    stats.completed = stats.events.saturating_sub(stats.pending + stats.processing + stats.failed);
    Ok(stats)
}

impl EventStore for NatsStore {
    fn put(&self, event: &Event) -> Result<(), BackendError> {
        let outcome = mirror::send(&self.database, std::slice::from_ref(event), &mut || ())?.into_iter().next();
        match outcome {
            Some(SendOutcome::Held | SendOutcome::Known) => Ok(()),
            Some(SendOutcome::Full { .. }) => Err(js::unavailable("the stream is full")),
            Some(SendOutcome::Conflict) => {
                Err(BackendError::Refused(format!("event {} is known with other content", event.id())))
            }
            Some(SendOutcome::Refused(reason)) => Err(BackendError::Refused(reason)),
            _ => Err(js::cut_off()),
        }
    }

    fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError> {
        let (database, id) = (Arc::clone(&self.database), id.clone());
        self.database.runtime.read(move |session| async move {
            let found = find(&session, &database, &id).await?;
            Ok(with_statuses(&session, &database, found.into_iter().collect()).await?.pop())
        })
    }

    fn list(&self, filter: &Filter) -> Result<Page, BackendError> {
        let (database, filter) = (Arc::clone(&self.database), filter.clone());
        self.database.runtime.read(move |session| list(session, database, filter))
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError> {
        let (database, changes) = (Arc::clone(&self.database), changes.to_vec());
        self.database.runtime.call_long(move |session| async move {
            let change = |change: StatusChange| {
                let (session, database) = (&session, &database);
                async move {
                    // Nothing has to be noted of what went well at once.
                    let status = Some(change.status.as_str().to_owned()).filter(|_| change.status != Status::Completed);
                    note(session, database, &change.id, |note: &mut Note| {
                        note.local.clone_from(&status);
                        note.error.clone_from(&change.error);
                        note.retries = note.retries.max(change.retry_count);
                    })
                    .await
                }
            };
            try_join_all(changes.into_iter().map(change)).await.map(drop)
        })
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        let (database, id) = (Arc::clone(&self.database), id.clone());
        self.database.runtime.call_long(move |session| async move {
            let Some((place, _)) = find(&session, &database, &id).await? else { return Ok(false) };
            let is_gone = js::delete(&session, database.stream(), place).await?;
            let notes = [STATUS, FAILED, AT].map(|kind| database.state.of_event(kind, &id));
            database.state.forget(&session, notes.to_vec()).await?;
            Ok(is_gone)
        })
    }

    /// What is open is counted among the first [`SCAN`] messages that some subscription has not acknowledged.
    fn stats(&self) -> Result<StoreStats, BackendError> {
        let database = Arc::clone(&self.database);
        self.database.runtime.read(move |session| stats(session, database))
    }
}
