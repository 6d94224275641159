//! The event store. The stream is the store: an event is found by the time in its id. A listing scans the streams, at most [`SCAN`] entries
//! at a time.

use std::sync::Arc;
use std::time::SystemTime;

use eventbroker::provider::{BackendError, EventStore, SendOutcome, StatusChange};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId, Status};
use parking_lot::Mutex;

use super::status::with_statuses;
use crate::publish::{Publishing, store};
use crate::scripts::{
    Client, DELETE_ENTRY, MergeScan, RECORD_OUTCOME, TOLERANCE, first_open, locate, millis, since_epoch,
};

/// The most entries that one listing scans. Its cursor continues behind them.
const SCAN: usize = 10_000;

pub(crate) struct RedisStore {
    pub(crate) publishing: Publishing,
    pub(crate) client: Mutex<Client>,
}

impl EventStore for RedisStore {
    fn put(&self, event: &Event) -> Result<(), BackendError> {
        let outcomes = store(&self.publishing, &mut self.client.lock(), std::slice::from_ref(event))?;
        match outcomes.into_iter().next() {
            Some(SendOutcome::Conflict) => {
                Err(BackendError::Refused(format!("event {} is known with other content", event.id())))
            }
            _ => Ok(()),
        }
    }

    fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError> {
        let mut client = self.client.lock();
        let found = locate(&mut client, id)?;
        Ok(with_statuses(&mut client, found.into_iter().collect())?.pop())
    }

    fn list(&self, filter: &Filter) -> Result<Page, BackendError> {
        let mut client = self.client.lock();
        let bound = |time: Option<SystemTime>| time.map(since_epoch);
        let from = bound(filter.created_from)
            .map_or("-".to_owned(), |at| at.saturating_sub(TOLERANCE).as_millis().to_string());
        let to = bound(filter.created_to).map_or("+".to_owned(), |at| (at + TOLERANCE).as_millis().to_string());
        let mut scan = MergeScan::new(&client.layout, filter.order, &from, &to);
        if let Some(after) = &filter.after {
            let Some((number, entry, _)) = locate(&mut client, after)? else {
                return Ok(Page::new(Vec::new(), None));
            };
            scan = scan.skip_to(&mut client, number, &entry)?;
        }
        // The order is that of the streams, so the filter must not compare ids with the cursor.
        let wanted = Filter { after: None, status: None, ..filter.clone() };
        let (mut page, mut scanned, mut last_id) = (Vec::new(), 0, None);
        loop {
            let step = scan.step(&mut client)?;
            scanned += step.entries;
            last_id = step.events.last().map(|(_, _, event)| event.id().clone()).or(last_id);
            let matching = step.events.into_iter().filter(|(_, _, event)| wanted.matches(event)).collect();
            let events = with_statuses(&mut client, matching)?;
            page.extend(events.into_iter().filter(|event| filter.status.is_none_or(|status| status == event.status())));
            if page.len() >= filter.effective_limit() {
                page.truncate(filter.effective_limit());
                let next = page.last().map(|event: &Event| event.id().clone());
                return Ok(Page::new(page, next));
            }
            if !step.more {
                return Ok(Page::new(page, None));
            }
            if scanned >= SCAN {
                return Ok(Page::new(page, last_id));
            }
        }
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError> {
        let mut arguments = vec![millis(self.publishing.settings.retention)];
        for change in changes {
            let error = change.error.clone().unwrap_or_default();
            let (id, status) = (change.id.to_string(), change.status.as_str().to_owned());
            arguments.extend([id, status, error, change.retry_count.to_string()]);
        }
        self.client.lock().run(&RECORD_OUTCOME, &arguments)
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        let mut client = self.client.lock();
        let Some((at, entry, _)) = locate(&mut client, id)? else { return Ok(false) };
        let layout = Arc::clone(&client.layout);
        let keys = [&*layout.prefix, &layout.streams[at - 1]];
        client.run_on(&DELETE_ENTRY, &keys, &[entry, id.to_string()])
    }

    /// Open events are counted among the first [`SCAN`] entries that a subscription has not acknowledged.
    fn stats(&self) -> Result<StoreStats, BackendError> {
        let mut client = self.client.lock();
        let mut stats = StoreStats::default();
        let layout = Arc::clone(&client.layout);
        stats.failed = client.query(redis::cmd("ZCARD").arg(layout.key("failed")))?;
        let mut scan = MergeScan::new(&client.layout, Order::OldestFirst, "-", "+");
        for (stream, range) in layout.streams.iter().zip(&mut scan.ranges) {
            stats.events += client.query::<u64>(redis::cmd("XLEN").arg(stream))?;
            // Without a consumer group, no event is open.
            range.from = first_open(&mut client, stream)?.unwrap_or_else(|| "+".to_owned());
        }
        let mut scanned = 0;
        while scanned < SCAN {
            let step = scan.step(&mut client)?;
            scanned += step.entries;
            for event in with_statuses(&mut client, step.events)? {
                match event.status() {
                    Status::Pending => stats.pending += 1,
                    Status::Processing => stats.processing += 1,
                    _ => {}
                }
            }
            if !step.more {
                break;
            }
        }
        stats.completed = stats.events.saturating_sub(stats.pending + stats.processing + stats.failed);
        Ok(stats)
    }
}
