//! The statistics of a broker, its bridge and its back end, as values. The counters are in the room `telemetry`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::verdict::{SubscriptionId, Verdict};

/// The totals and the current state of a broker.
///
/// Totals are exact: `accepted = completed + failed + in_flight`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The name of this instance.
    pub instance_id: Arc<str>,
    /// Whether the broker accepts events.
    pub is_running: bool,
    /// Publishes that were accepted, without duplicates.
    pub accepted: u64,
    /// Publishes that were refused.
    pub rejected: u64,
    /// Publishes of an id that was known already.
    pub duplicates: u64,
    /// Completed events.
    pub completed: u64,
    /// Failed events.
    pub failed: u64,
    /// Accepted events that are neither completed nor failed.
    pub in_flight: u64,
    /// Deliveries by verdict, over all subscriptions, removed ones included.
    pub deliveries: DeliveryTotals,
    /// Calls of handlers, over all subscriptions, removed ones included.
    pub attempts: u64,
    /// Calls that were retries, included in `attempts`.
    pub retries: u64,
    /// Dead letters in this process; a back end counts [its own](BackEndStats::dead_letters).
    pub dead_letters: u64,
    /// Dead letters that were evicted at `max_dead_letters`, or lost otherwise.
    pub dead_letters_evicted: u64,
    /// Notices (`eventbroker.dead_letter` events) that could not be published.
    pub dead_letter_notices_lost: u64,
    /// Worker threads, shared and dedicated.
    pub workers: usize,
    /// Worker threads that run a handler now.
    pub workers_busy: usize,
    /// Handlers that have run longer than `max_handler_time` and still run.
    pub stuck_handlers: usize,
    /// Events that full streams have dropped.
    pub stream_gaps: u64,
    /// The subscriptions, ordered by id.
    pub subscriptions: Vec<SubscriptionStats>,
    /// The bridge to the back end, if there is one.
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
    /// Dead letters. One that succeeds after a requeue also counts as `done`.
    pub dead: u64,
    /// Dropped by an overflow policy.
    pub dropped: u64,
    /// Cancelled by `unsubscribe` or `stop`.
    pub cancelled: u64,
}

impl DeliveryTotals {
    /// The totals, from the count of each verdict.
    pub(crate) fn of(count: impl Fn(Verdict) -> u64) -> Self {
        Self {
            done: count(Verdict::Done),
            skipped: count(Verdict::Skipped),
            dead: count(Verdict::Dead),
            dropped: count(Verdict::Dropped),
            cancelled: count(Verdict::Cancelled),
        }
    }
}

/// The totals and the current state of one subscription.
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
    /// The bound of `queued`.
    pub queue_capacity: u64,
    /// Waiting retries, and deliveries parked behind them.
    pub waiting: u64,
    /// Calls that run now.
    pub running: u64,
    /// Whether the subscription is paused: no call begins until it is resumed.
    pub paused: bool,
    /// Calls so far.
    pub attempts: u64,
    /// Calls that were retries, included in `attempts`.
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
    /// Events that the back end has not confirmed yet.
    pub mirror_backlog: u64,
    /// Leased deliveries that were received.
    pub ingested: u64,
    /// Leases that are not settled yet.
    pub leases: u64,
    /// Leases that were settled too late, when another member had them.
    pub leases_lost: u64,
    /// Calls of the back end that failed.
    pub errors: u64,
    /// The last error.
    pub last_error: Option<String>,
}

/// The deliveries that a back end keeps, over all instances.
///
/// Computing it makes the back end read everything that waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackEndStats {
    /// Dead letters of the consumer group.
    pub dead_letters: u64,
    /// The highest number of a dead letter of the group; 0 if there is none.
    pub newest_dead_letter: u64,
    /// Dead letters that were removed with their events after `retention`.
    pub dead_letters_expired: u64,
    /// Subscriptions that were removed after no member used them for `idle_expiry`.
    pub subscriptions_expired: u64,
    /// Events that were lost at the back end before a subscription handled them: at least as many.
    /// Another program has removed them, or the back end itself has lost them. PostgreSQL counts an accepted event that is
    /// absent after a failover, handled or not.
    pub entries_lost: u64,
    /// How often a subscription has lost entries without a number, its whole backlog for example.
    pub losses_unknown: u64,
    /// The age of the oldest open transaction that has written, of any program.
    /// Streams wait until it ends, and so do events that a new subscription missed meanwhile. `None` if there is no
    /// such transaction, or nothing at the back end waits for one.
    pub oldest_transaction: Option<Duration>,
    /// The subscriptions of every group, ordered by group and name.
    pub subscriptions: Vec<SubscriptionLag>,
}

/// The backlog of one subscription, over all instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionLag {
    /// Its consumer group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// The instance that owns a broadcast subscription; `None` for a group's.
    pub instance: Option<String>,
    /// Its pattern.
    pub pattern: String,
    /// Deliveries that wait for a member.
    pub ready: u64,
    /// Deliveries that a member has leased.
    pub leased: u64,
    /// Retries that the back end keeps until they are due.
    pub deferred: u64,
    /// Dead letters.
    pub dead: u64,
    /// When the oldest event among the ready deliveries was created.
    pub oldest_ready: Option<SystemTime>,
}

/// The events in a store, by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// All events.
    pub events: u64,
    /// Accepted events without an attempt.
    pub pending: u64,
    /// Events with an attempt and an open delivery.
    pub processing: u64,
    /// Events whose deliveries have all ended, none dead or dropped.
    pub completed: u64,
    /// Events whose deliveries have all ended, one of them dead or dropped.
    pub failed: u64,
}
