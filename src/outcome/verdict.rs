//! How deliveries end, and how that is reported. Data only.

use std::fmt;
use std::sync::Arc;

use crate::event::{Event, EventId};

/// Identifies a subscription of one broker. It displays as `sub-1`, `sub-2`, …
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
    /// The handler chose not to handle it.
    Skipped,
    /// Attempts were used up, or it failed permanently: see the dead letters.
    Dead,
    /// An overflow policy gave its place away.
    Dropped,
    /// The subscription was removed, or the broker stopped, before it ran.
    Cancelled,
}

impl Verdict {
    /// Whether it makes the event `failed`.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Dead | Self::Dropped)
    }
}

/// The end of one delivery, as [`on_settled`](crate::Broker::on_settled) observers see it.
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

/// The end of one delivery, as [`publish_sync`](crate::Broker::publish_sync) reports it.
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

/// An accepted publish: the event is held as the provider promises.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The event's id.
    pub id: EventId,
    /// The id was known: nothing was stored or delivered again.
    pub duplicate: bool,
    /// Subscriptions of this instance that receive it directly.
    pub deliveries: usize,
}

/// What became of an event that was published with [`publish_sync`](crate::Broker::publish_sync).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncReport {
    /// The event's id.
    pub id: EventId,
    /// The id was known: nothing was stored or delivered again, and the deliveries of the first are not listed.
    pub duplicate: bool,
    /// The deliveries that are terminal, in the order in which they ended.
    pub settled: Vec<DeliveryReport>,
    /// Names of the subscriptions whose delivery was still open when `sync_timeout` was up.
    pub open: Vec<Arc<str>>,
}

impl SyncReport {
    /// True if every delivery is terminal and none is dead or dropped.
    pub fn is_success(&self) -> bool {
        self.open.is_empty() && !self.settled.iter().any(|delivery| delivery.verdict.is_failure())
    }

    /// The last error among the deliveries that failed.
    pub fn error(&self) -> Option<&str> {
        self.settled.iter().rev().filter(|delivery| delivery.verdict.is_failure()).find_map(|it| it.error.as_deref())
    }
}
