//! Totals. Counts; never decides.
//!
//! Threads count on cache lines of their own, so counting costs a few nanoseconds and readers add up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::verdict::SubscriptionId;

/// What a broker did so far, and what it is doing. Totals are exact: `accepted = completed + failed + in_flight`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The name of this instance.
    pub instance_id: Arc<str>,
    /// Whether it takes events.
    pub is_running: bool,
    /// Publishes that were accepted (duplicates are not counted again).
    pub accepted: u64,
    /// Publishes that were refused.
    pub rejected: u64,
    /// Publishes of a known id.
    pub duplicates: u64,
    /// Events that are completed.
    pub completed: u64,
    /// Events that are failed.
    pub failed: u64,
    /// Events that are accepted and neither completed nor failed.
    pub in_flight: u64,
    /// Deliveries by verdict, over all subscriptions, removed ones included.
    pub deliveries: DeliveryTotals,
    /// Calls of handlers, over all subscriptions, removed ones included.
    pub attempts: u64,
    /// Those of them that were retries.
    pub retries: u64,
    /// Dead letters that this process holds; a back end counts [its own](BackEndStats::dead_letters).
    pub dead_letters: u64,
    /// Dead letters that fell out because there was no room, or were lost otherwise.
    pub dead_letters_evicted: u64,
    /// Notices (`eventbroker.dead_letter` events) that could not be published.
    pub dead_letter_notices_lost: u64,
    /// Worker threads, shared and dedicated.
    pub workers: usize,
    /// Worker threads that are inside of a handler.
    pub workers_busy: usize,
    /// Handlers that run longer than `max_handler_time` at this moment.
    pub stuck_handlers: usize,
    /// Events that streams missed because they were full.
    pub stream_gaps: u64,
    /// Each subscription, in the order of ids.
    pub subscriptions: Vec<SubscriptionStats>,
    /// The bridges to the back end, if there is one.
    pub bridge: Option<BridgeStats>,
}

/// Deliveries by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryTotals {
    /// Handled.
    pub done: u64,
    /// Skipped by the handler.
    pub skipped: u64,
    /// Dead letters. A requeued one that succeeds is counted here and under `done`.
    pub dead: u64,
    /// Given up by an overflow policy.
    pub dropped: u64,
    /// Cancelled by `unsubscribe` or `stop`.
    pub cancelled: u64,
}

/// One subscription.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Its id.
    pub id: SubscriptionId,
    /// Its name.
    pub name: Arc<str>,
    /// Its pattern.
    pub pattern: Arc<str>,
    /// How many calls may run at once.
    pub concurrency: usize,
    /// Deliveries in the queue.
    pub queued: u64,
    /// The most there may be.
    pub queue_capacity: u64,
    /// Retries that wait, and deliveries parked behind them.
    pub waiting: u64,
    /// Calls that run.
    pub running: u64,
    /// No call begins until it is resumed.
    pub paused: bool,
    /// Calls so far.
    pub attempts: u64,
    /// Those of them that were retries.
    pub retries: u64,
    /// Deliveries by verdict.
    pub deliveries: DeliveryTotals,
}

/// The bridge to a back end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeStats {
    /// Events that the back end has confirmed.
    pub mirrored: u64,
    /// Events that wait for it.
    pub mirror_backlog: u64,
    /// Deliveries that came in.
    pub ingested: u64,
    /// Deliveries from the back end that are not settled yet.
    pub leases: u64,
    /// Deliveries whose verdict came too late: another member had them by then.
    pub leases_lost: u64,
    /// Calls of the back end that failed.
    pub errors: u64,
    /// The last of them.
    pub last_error: Option<String>,
}

/// What a back end that keeps deliveries tells of them, over all instances. Asking for it is a look at everything that waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackEndStats {
    /// Dead letters of the consumer group.
    pub dead_letters: u64,
    /// The highest number that a dead letter of the group has; 0 if there is none.
    pub newest_dead_letter: u64,
    /// Dead letters that went with their events when those were old enough.
    pub dead_letters_expired: u64,
    /// Subscriptions that were removed because nobody used them for `idle_expiry`.
    pub subscriptions_expired: u64,
    /// Events that a subscription has not handled and never will, because somebody else has removed them from the back end or the back
    /// end itself has lost them. Exact if [`losses_unknown`](Self::losses_unknown) is 0, else at least so many.
    pub entries_lost: u64,
    /// How often a subscription has lost more than could be counted: all that was there is gone.
    pub losses_unknown: u64,
    /// How long the oldest transaction has been open that has written something, whoever's it is: streams wait until it ends, and so
    /// do events that a new subscription missed meanwhile. `None` if there is none, or the back end has nothing that waits for one.
    pub oldest_transaction: Option<Duration>,
    /// The subscriptions of every group, in the order of groups and names.
    pub subscriptions: Vec<SubscriptionLag>,
}

/// How far a subscription is behind, over all instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionLag {
    /// Its consumer group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Of a broadcast subscription: the instance that it belongs to.
    pub instance: Option<String>,
    /// Its pattern.
    pub pattern: String,
    /// Deliveries that wait for a member.
    pub ready: u64,
    /// Deliveries that a member has.
    pub leased: u64,
    /// Retries that the back end keeps until they are due.
    pub deferred: u64,
    /// Dead letters.
    pub dead: u64,
    /// When the oldest event that waits was created.
    pub oldest_ready: Option<SystemTime>,
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
