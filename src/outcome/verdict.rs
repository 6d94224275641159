//! The verdicts of deliveries, and the values that report them.

use std::fmt;
use std::sync::Arc;

use crate::event::{Event, EventId};

/// Identifies a subscription of one broker.
/// Displays as `sub-1`, `sub-2`, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub(crate) u64);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sub-{}", self.0)
    }
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The handler succeeded.
    Done,
    /// The handler skipped the event.
    Skipped,
    /// All attempts failed, or one failed permanently. A dead letter was created.
    Dead,
    /// An overflow policy dropped the delivery.
    Dropped,
    /// The subscription was removed, or the broker stopped, before a call began.
    Cancelled,
}

impl Verdict {
    /// The number of verdicts, for counters by verdict.
    pub(crate) const COUNT: usize = Self::Cancelled as usize + 1;

    /// Whether the verdict makes the event `failed`.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Dead | Self::Dropped)
    }
}

/// A settled delivery, as passed to [`on_settled`](crate::Broker::on_settled) observers.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Settled<'a> {
    /// The event.
    pub event: &'a Event,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its name.
    pub name: &'a str,
    /// How it ended.
    pub verdict: Verdict,
    /// Calls of the handler, from 1; 0 if there was none.
    pub attempts: u32,
    /// The last error, if the last attempt failed.
    pub error: Option<&'a str>,
}

/// A settled delivery in the report of [`publish_sync`](crate::Broker::publish_sync).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryReport {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its name.
    pub name: Arc<str>,
    /// How it ended.
    pub verdict: Verdict,
    /// Calls of the handler, from 1; 0 if there was none.
    pub attempts: u32,
    /// The last error, if the last attempt failed.
    pub error: Option<String>,
}

/// An accepted publish. The event is stored as the provider guarantees.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The event's id.
    pub id: EventId,
    /// Whether the id was known. Then nothing was stored or delivered again.
    pub duplicate: bool,
    /// Subscriptions that receive the event from this instance, without a back end.
    pub deliveries: usize,
}

/// The result of [`publish_sync`](crate::Broker::publish_sync).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncReport {
    /// The event's id.
    pub id: EventId,
    /// Whether the id was known. Then nothing was stored or delivered again.
    /// The deliveries of the first publish are not listed.
    pub duplicate: bool,
    /// The deliveries that have ended, in that order.
    pub settled: Vec<DeliveryReport>,
    /// The subscriptions whose delivery was still open after `sync_timeout`, by name.
    pub open: Vec<Arc<str>>,
}

impl SyncReport {
    /// Whether every delivery has ended and none is dead or dropped.
    pub fn is_success(&self) -> bool {
        self.open.is_empty() && !self.settled.iter().any(|delivery| delivery.verdict.is_failure())
    }

    /// The last error among the deliveries that failed.
    pub fn error(&self) -> Option<&str> {
        self.settled.iter().rev().filter(|delivery| delivery.verdict.is_failure()).find_map(|it| it.error.as_deref())
    }
}
