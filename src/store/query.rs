//! Queries over the whole store: pages, counts, the oldest open event. None of them counts as a use of an event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use super::Store;
use crate::event::{Event, EventId, Status};
use crate::outcome::{Filter, Order, Page, StoreStats};

impl Store {
    /// One pass over the store that keeps the first `limit` matches in the order of ids. Every event that is stored
    /// throughout is visited. One that is visited twice, because it moved, is listed once: the page is a map by id.
    pub(crate) fn list(&self, filter: &Filter) -> Page {
        let limit = filter.effective_limit();
        let events = match filter.order {
            Order::OldestFirst => self.first(filter, limit, |id| id),
            Order::NewestFirst => self.first(filter, limit, Reverse),
        };
        let next = if events.len() == limit { events.last().map(|event| event.id().clone()) } else { None };
        Page { events, next }
    }

    fn first<K: Ord>(&self, filter: &Filter, limit: usize, key: impl Fn(EventId) -> K) -> Vec<Event> {
        let mut page: BTreeMap<K, Event> = BTreeMap::new();
        self.for_each(|record| {
            if limit == 0 || !filter.matches_with(&record.event, record.progress().status()) {
                return;
            }
            let key = key(record.event.id().clone());
            if page.len() == limit && page.last_key_value().is_some_and(|(last, _)| key >= *last) {
                return;
            }
            // The status may have changed since the first check: list the event only if it still matches.
            let event = record.snapshot();
            if filter.status.is_some_and(|status| status != event.status()) {
                return;
            }
            page.insert(key, event);
            if page.len() > limit {
                page.pop_last();
            }
        });
        page.into_values().collect()
    }

    /// Creation time of the oldest open event, in nanoseconds of wall time.
    pub(crate) fn oldest_open(&self) -> Option<u64> {
        let mut oldest = None;
        self.for_each(|record| {
            if record.progress().is_open() {
                let created = record.event.created_nanos();
                oldest = Some(oldest.map_or(created, |oldest: u64| oldest.min(created)));
            }
        });
        oldest
    }

    /// Counts the stored events by status, in one pass.
    pub(crate) fn stats(&self) -> StoreStats {
        let mut stats = StoreStats::default();
        let mut seen_aged = HashSet::new();
        self.for_each(|record| {
            let progress = record.progress();
            // Only a record that has moved to the aged generation can be visited twice.
            if progress.is_aged() && !seen_aged.insert(record.event.id().clone()) {
                return;
            }
            stats.events += 1;
            match progress.status() {
                Status::Pending => stats.pending += 1,
                Status::Processing => stats.processing += 1,
                Status::Completed => stats.completed += 1,
                Status::Failed => stats.failed += 1,
            }
        });
        stats
    }
}
