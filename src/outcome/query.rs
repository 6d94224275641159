//! Filters and pages for listing stored events, in this process or at a back end.

use std::time::SystemTime;

use crate::event::{Event, EventId, Source, Status};

/// Selects the events that [`Broker::list`](crate::Broker::list) returns.
///
/// All conditions must hold; the default matches every event.
///
/// ```
/// use eventbroker::Status;
/// use eventbroker::query::Filter;
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
    /// Only events that this instance published.
    pub instance_id: Option<String>,
    /// Only events created at this time or later.
    pub created_from: Option<SystemTime>,
    /// Only events created at this time or earlier.
    pub created_to: Option<SystemTime>,
    /// The order of the page. Default: oldest first.
    pub order: Order,
    /// Only events after this id in that order: the cursor of the previous page.
    pub after: Option<EventId>,
    /// The most events of a page. Default (`None`): 100; at most 10,000.
    pub limit: Option<usize>,
}

/// The order of a page, by id. Generated ids ascend with the time of creation.
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
    /// The cursor of the next page ([`Filter::after`]), if more events may match.
    pub next: Option<EventId>,
}

impl Page {
    /// Creates a page, for back ends.
    pub fn new(events: Vec<Event>, next: Option<EventId>) -> Self {
        Self { events, next }
    }
}

impl Filter {
    /// The most events of a page if no limit is set.
    pub const DEFAULT_LIMIT: usize = 100;
    /// The largest limit.
    pub const MAX_LIMIT: usize = 10_000;

    /// The limit, default and bound applied.
    pub fn effective_limit(&self) -> usize {
        self.limit.unwrap_or(Self::DEFAULT_LIMIT).min(Self::MAX_LIMIT)
    }

    /// Whether an event meets every condition and is beyond the cursor.
    pub fn matches(&self, event: &Event) -> bool {
        self.matches_with(event, event.status())
    }

    pub(crate) fn matches_with(&self, event: &Event, status: Status) -> bool {
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
