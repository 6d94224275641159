//! Events and their statuses, read from the stream. No query reads more than [`PAGE_SCAN`] messages at a time.

use std::sync::Arc;

use eventbroker::provider::{BackendError, EventStore, SendOutcome, StatusChange};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId, Status};
use futures_util::future::try_join_all;

use super::locate::{Locator, PAGE_SCAN, STEP, first_since};
use super::status::with_statuses;
use crate::housekeeping::first_open;
use crate::jetstream::api::{cut_off, unavailable};
use crate::jetstream::entry::events_of;
use crate::jetstream::kv::{AT, FAILED, STATUS};
use crate::jetstream::{Result, Scan, ScanRequest, Start, StoredMessage};
use crate::jetstream::{message, scan, stream};
use crate::publish::{MAX_DELAY, Publisher};
use crate::settle::{StatusRecord, change_status};
use crate::transport::Session;

/// The store of a provider.
pub(crate) struct NatsStore {
    pub(crate) locator: Arc<Locator>,
    pub(crate) publisher: Arc<Publisher>,
}

/// A listing of messages in one order.
struct Listing<'a> {
    stream: &'a str,
    order: Order,
    /// The next message to read, and the last one; in the other order, the last one and the next.
    from: u64,
    to: u64,
    scan: Option<Scan>,
}

impl Listing<'_> {
    /// The next messages in the order; none at the end.
    async fn step(&mut self, session: &Session) -> Result<Vec<StoredMessage>> {
        if self.from == 0 || self.to == 0 || self.from > self.to {
            return Ok(Vec::new());
        }
        if self.order == Order::OldestFirst {
            let scan = match &mut self.scan {
                Some(scan) => scan,
                none => {
                    none.insert(Scan::open(session, ScanRequest::new(self.stream, &[], Start::At(self.from))).await?)
                }
            };
            let mut found = scan.next(session, STEP).await?;
            found.retain(|message| message.sequence <= self.to);
            self.from = found.last().map_or(self.to + 1, |last| last.sequence + 1);
            return Ok(found);
        }
        loop {
            let first = self.to.saturating_sub(STEP as u64 - 1).max(self.from);
            let mut scan = Scan::open(session, ScanRequest::new(self.stream, &[], Start::At(first))).await?;
            let mut found = scan.next(session, (self.to - first + 1) as usize).await?;
            scan.close(session).await;
            found.retain(|message| message.sequence <= self.to);
            found.reverse();
            self.to = first - 1;
            // Where all messages were removed, earlier ones may exist.
            if !found.is_empty() || self.to < self.from {
                return Ok(found);
            }
        }
    }

    async fn close(self, session: &Session) {
        if let Some(scan) = self.scan {
            scan.close(session).await;
        }
    }
}

async fn list(session: Session, locator: Arc<Locator>, filter: Filter) -> Result<Page> {
    let Locator { layout, kv, .. } = &*locator;
    let info = stream::info(&session, &layout.stream).await?.unwrap_or_default();
    let (mut from, mut to) = (stream::state(&info, "first_seq").max(1), stream::state(&info, "last_seq"));
    if let Some(time) = filter.created_from.and_then(|at| at.checked_sub(MAX_DELAY)) {
        from = from.max(first_since(&session, layout, time).await?);
    }
    if let Some(time) = filter.created_to {
        to = to.min(first_since(&session, layout, time + MAX_DELAY).await?.saturating_sub(1));
    }
    if let Some(after) = &filter.after {
        let Some((place, _)) = locator.find(&session, after).await? else { return Ok(Page::new(Vec::new(), None)) };
        match filter.order {
            Order::OldestFirst => from = from.max(place + 1),
            Order::NewestFirst => to = to.min(place.saturating_sub(1)),
        }
    }
    // The order is that of the stream, in which an id may come before a smaller one.
    let of_events = Filter { after: None, status: None, ..filter.clone() };
    let mut listing = Listing { stream: &layout.stream, order: filter.order, from, to, scan: None };
    let (mut page, mut scanned, mut last) = (Vec::new(), 0, None);
    let page = loop {
        let step = listing.step(&session).await?;
        if step.is_empty() {
            break Page::new(page, None);
        }
        scanned += step.len();
        let events = events_of(layout, step);
        let places: Vec<(EventId, u64)> = events.iter().map(|(place, event)| (event.id().clone(), *place)).collect();
        last = places.last().cloned().or(last);
        let matching = events.into_iter().filter(|(_, event)| of_events.matches(event)).collect();
        let found = with_statuses(&session, layout, kv, matching).await?;
        page.extend(found.into_iter().filter(|event| filter.status.is_none_or(|status| status == event.status())));
        if page.len() >= filter.effective_limit() {
            page.truncate(filter.effective_limit());
            let next = page.last().map(|event: &Event| event.id().clone());
            last = places.into_iter().find(|(id, _)| Some(id) == next.as_ref());
            break Page::new(page, next);
        }
        if scanned >= PAGE_SCAN {
            break Page::new(page, last.as_ref().map(|(id, _)| id.clone()));
        }
    };
    listing.close(&session).await;
    if let Some((id, place)) = last {
        // The next page begins here.
        locator.remember(&id, place);
    }
    Ok(page)
}

async fn stats(session: Session, locator: Arc<Locator>) -> Result<StoreStats> {
    let Locator { layout, kv, .. } = &*locator;
    let mut stats = StoreStats::default();
    let info = stream::info(&session, &layout.stream).await?.unwrap_or_default();
    stats.events = stream::state(&info, "messages");
    stats.failed = scan::count(&session, &kv.stream, &kv.key(FAILED, "*")).await?;
    if let Some(from) = first_open(&session, layout, kv).await? {
        let (order, to) = (Order::OldestFirst, stream::state(&info, "last_seq"));
        let mut listing = Listing { stream: &layout.stream, order, from, to, scan: None };
        let mut scanned = 0;
        while scanned < PAGE_SCAN {
            let step = listing.step(&session).await?;
            if step.is_empty() {
                break;
            }
            scanned += step.len();
            for event in with_statuses(&session, layout, kv, events_of(layout, step)).await? {
                match event.status() {
                    Status::Pending => stats.pending += 1,
                    Status::Processing => stats.processing += 1,
                    _ => {}
                }
            }
        }
        listing.close(&session).await;
    }
    stats.completed = stats.events.saturating_sub(stats.pending + stats.processing + stats.failed);
    Ok(stats)
}

impl EventStore for NatsStore {
    fn put(&self, event: &Event) -> Result<()> {
        match self.publisher.send(std::slice::from_ref(event), &mut || ())?.into_iter().next() {
            Some(SendOutcome::Held | SendOutcome::Known) => Ok(()),
            Some(SendOutcome::Full { .. }) => Err(unavailable("the stream is full")),
            Some(SendOutcome::Conflict) => {
                Err(BackendError::Refused(format!("event {} is known with other content", event.id())))
            }
            Some(SendOutcome::Refused(reason)) => Err(BackendError::Refused(reason)),
            _ => Err(cut_off()),
        }
    }

    fn get(&self, id: &EventId) -> Result<Option<Event>> {
        let (locator, id) = (Arc::clone(&self.locator), id.clone());
        self.locator.runtime.read(move |session| async move {
            let found = locator.find(&session, &id).await?.into_iter().collect();
            Ok(with_statuses(&session, &locator.layout, &locator.kv, found).await?.pop())
        })
    }

    fn list(&self, filter: &Filter) -> Result<Page> {
        let (locator, filter) = (Arc::clone(&self.locator), filter.clone());
        self.locator.runtime.read(move |session| list(session, locator, filter))
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<()> {
        let (locator, changes) = (Arc::clone(&self.locator), changes.to_vec());
        self.locator.runtime.call_long(move |session| async move {
            let change = async |change: StatusChange| {
                // An event that completes without a failure needs no record.
                let status = Some(change.status.as_str().to_owned()).filter(|_| change.status != Status::Completed);
                change_status(&session, &locator.kv, &change.id, |record: &mut StatusRecord| {
                    record.local.clone_from(&status);
                    record.error.clone_from(&change.error);
                    record.retries = record.retries.max(change.retry_count);
                })
                .await
            };
            try_join_all(changes.into_iter().map(change)).await.map(drop)
        })
    }

    fn delete(&self, id: &EventId) -> Result<bool> {
        let (locator, id) = (Arc::clone(&self.locator), id.clone());
        self.locator.runtime.call_long(move |session| async move {
            let Some((place, _)) = locator.find(&session, &id).await? else { return Ok(false) };
            let is_gone = message::delete(&session, &locator.layout.stream, place).await?;
            let keys = [STATUS, FAILED, AT].map(|kind| locator.kv.event_key(kind, &id));
            locator.kv.remove(&session, keys).await?;
            Ok(is_gone)
        })
    }

    /// Counts the open events among the first [`PAGE_SCAN`] messages that some subscription has not acknowledged.
    fn stats(&self) -> Result<StoreStats> {
        let locator = Arc::clone(&self.locator);
        self.locator.runtime.read(move |session| stats(session, locator))
    }
}
