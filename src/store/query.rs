//! Looking through the store: filter, order, page. Reading a page is no use of its events.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Store;
use crate::event::{Event, EventId, Source, Status};

/// Which events [`Broker::list`](crate::Broker::list) returns. All conditions must hold; the default matches every event.
///
/// ```
/// use eventbroker::{Filter, Status};
///
/// let failed_orders = Filter { status: Some(Status::Failed), entity: Some("orders".into()), ..Filter::default() };
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Only this source.
    pub source: Option<Source>,
    /// Only this status.
    pub status: Option<Status>,
    /// Only this user.
    pub user_id: Option<i64>,
    /// Only this schema.
    pub schema: Option<String>,
    /// Only this entity.
    pub entity: Option<String>,
    /// Only this operation.
    pub operation: Option<String>,
    /// Only events of this instance.
    pub instance_id: Option<String>,
    /// Only events created at this time or later.
    pub created_from: Option<SystemTime>,
    /// Only events created at this time or earlier.
    pub created_to: Option<SystemTime>,
    /// Order of ids. Default: oldest first.
    pub order: Order,
    /// Only events that come after this id in that order: the cursor of the page before.
    pub after: Option<EventId>,
    /// The most events of a page. Default (`None`): 100; at most 10,000.
    pub limit: Option<usize>,
}

/// The order of a page: by id, which for our ids is the order of creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Ascending.
    #[default]
    OldestFirst,
    /// Descending.
    NewestFirst,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The events, each with its status at the time of the call.
    pub events: Vec<Event>,
    /// The cursor of the next page ([`Filter::after`]), if there may be one.
    pub next: Option<EventId>,
}

impl Page {
    /// A page, for stores of back ends.
    pub fn new(events: Vec<Event>, next: Option<EventId>) -> Self {
        Self { events, next }
    }
}

/// What the store of this process holds, by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// All events held.
    pub events: u64,
    /// Accepted, and no attempt has begun.
    pub pending: u64,
    /// An attempt has begun, and a delivery is open.
    pub processing: u64,
    /// Every delivery is terminal, none of them dead or dropped.
    pub completed: u64,
    /// Every delivery is terminal, one of them dead or dropped.
    pub failed: u64,
}

impl Filter {
    /// The number of events of a page when no limit is given.
    pub const DEFAULT_LIMIT: usize = 100;
    /// The largest page.
    pub const MAX_LIMIT: usize = 10_000;

    /// The limit in force.
    pub fn effective_limit(&self) -> usize {
        self.limit.unwrap_or(Self::DEFAULT_LIMIT).min(Self::MAX_LIMIT)
    }

    /// Whether an event belongs to the pages of this filter: every condition holds, and it is beyond the cursor.
    pub fn matches(&self, event: &Event) -> bool {
        self.matches_with(event, event.status())
    }

    fn matches_with(&self, event: &Event, status: Status) -> bool {
        let same = |wanted: &Option<String>, actual: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == actual)
        };
        self.is_beyond_cursor(event.id())
            && self.source.is_none_or(|source| source == event.source())
            && self.status.is_none_or(|wanted| wanted == status)
            && self.user_id.is_none_or(|user| Some(user) == event.user_id())
            && same(&self.schema, event.schema())
            && same(&self.entity, event.entity())
            && same(&self.operation, event.operation())
            && same(&self.instance_id, event.instance_id())
            && self.created_from.is_none_or(|from| event.created_at() >= from)
            && self.created_to.is_none_or(|to| event.created_at() <= to)
    }

    fn is_beyond_cursor(&self, id: &EventId) -> bool {
        match (&self.after, self.order) {
            (None, _) => true,
            (Some(after), Order::OldestFirst) => id > after,
            (Some(after), Order::NewestFirst) => id < after,
        }
    }
}

impl Store {
    /// One pass over the store that keeps the first `limit` matches in the order of ids. Each event that was there
    /// throughout is seen; one that moved meanwhile is seen once, for the page is a map by id.
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
            // The status may have changed since: what is shown is what was asked for.
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

    /// Counts what is held, in one pass.
    pub(crate) fn stats(&self) -> StoreStats {
        let mut stats = StoreStats::default();
        let mut seen_aged = std::collections::HashSet::new();
        self.for_each(|record| {
            let progress = record.progress();
            // Only what has moved to the aged generation can be seen twice.
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
