//! The operators' part of the seam: dead letters of all instances, requeue, purge, replay, lag, and tailing. The room
//! `broker` merges the answers with the dead letters of this process.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::config::StartPosition;
use crate::event::{Event, EventId, Pattern};
use crate::outcome::{BackEndStats, BackendError, DeadLetter, DeadLetterFilter};

/// Dead letters, replay and lag of one consumer group, for operators.
///
/// The thread that calls [`Broker`](crate::Broker) calls these methods, several threads at once if several ask. Each
/// may block for the back end's own time limit. The engine retries none: an error goes to the caller.
///
/// The back end creates a dead letter when a lease is settled as [`Dead`](super::LeaseOutcome::Dead). Its number is
/// below [`FIRST_LOCAL`](DeadLetter::FIRST_LOCAL), is never reused, and is higher than those of all earlier letters.
pub trait Operator: Send + Sync {
    /// Lists the dead letters that match, in the order of their numbers.
    ///
    /// Returns at most [`DeadLetterFilter::effective_limit`] of them.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError>;
    /// Turns 1 to 256 dead letters into ready deliveries, with no attempt made yet.
    ///
    /// Any member of the subscription that failed may receive them. Returns the numbers of the letters that existed.
    /// Removing a subscription has removed its letters.
    ///
    /// # Errors
    /// Any [`BackendError`]. Some letters may be requeued by then.
    fn requeue(&self, dead_letters: &[u64]) -> Result<Vec<u64>, BackendError>;
    /// Deletes 1 to 256 dead letters and returns how many existed.
    /// Their events stay failed.
    ///
    /// # Errors
    /// Any [`BackendError`]. Some letters may be deleted by then.
    fn purge(&self, dead_letters: &[u64]) -> Result<u64, BackendError>;
    /// Delivers stored events again to one subscription, oldest first.
    ///
    /// Replays the events that the subscription's pattern matches and that have no open delivery to it. With `dry_run`,
    /// only counts them. Called only if [`Capabilities::replay`](super::Capabilities::replay) is set.
    ///
    /// # Errors
    /// [`BackendError::Refused`] if the group has no such subscription, or an id of the range is not stored.
    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError>;
    /// Returns the backlog of each subscription of every group, and totals.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn stats(&self) -> Result<BackEndStats, BackendError>;
    /// Opens a view of the matching events of all instances.
    ///
    /// A bridge may give it a connection of its own. Called only if [`Capabilities::tail`](super::Capabilities::tail) is set.
    ///
    /// # Errors
    /// [`BackendError::Refused`] if `start` names an event that is not stored.
    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn Tail>, BackendError>;
}

/// A view of events in stored order. Leases and settles nothing.
///
/// The thread that reads the [`EventStream`](crate::EventStream) calls it, one call at a time. Dropping it closes the
/// view.
pub trait Tail: Send {
    /// Returns the next 1 to `max` events, or none if no event came within `wait`.
    ///
    /// `wait` is at most 250 ms, and zero for a read that must not wait.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`]. The engine counts and logs it, and calls again; that call resumes at the same
    /// position.
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError>;
}

/// Selects the events that are delivered again, and the subscription.
/// All conditions must hold.
///
/// ```
/// use eventbroker::provider::Replay;
/// use std::time::{Duration, SystemTime};
///
/// let mut last_hour = Replay::of("mailer");
/// last_hour.from = Some(SystemTime::now() - Duration::from_secs(3600));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Replay {
    /// The subscription's name, in this consumer group.
    pub subscription: String,
    /// Only events created at this time or later.
    pub from: Option<SystemTime>,
    /// Only events created at this time or earlier.
    pub to: Option<SystemTime>,
    /// Only events stored after this one, which must be stored.
    /// The cursor of a replay.
    pub after: Option<EventId>,
    /// Only events stored up to this one, inclusive. It must be stored.
    pub until: Option<EventId>,
    /// Only events whose type matches this pattern, besides the subscription's own.
    pub event_type: Option<Pattern>,
    /// The most deliveries. Default 1,000; 1 to 100,000.
    pub limit: usize,
}

impl Replay {
    /// The most deliveries of one replay.
    pub const MAX_LIMIT: usize = 100_000;

    /// Selects the first 1,000 events of a subscription.
    pub fn of(subscription: impl Into<String>) -> Self {
        Self {
            subscription: subscription.into(),
            from: None,
            to: None,
            after: None,
            until: None,
            event_type: None,
            limit: 1_000,
        }
    }
}

/// The result of a replay or of its dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// Deliveries that were created, or would be.
    pub deliveries: u64,
    /// The cursor of the next replay ([`Replay::after`]), if the limit was reached.
    pub next: Option<EventId>,
}

impl Replayed {
    /// Creates a result, for back ends.
    pub fn new(deliveries: u64, next: Option<EventId>) -> Self {
        Self { deliveries, next }
    }
}

impl fmt::Debug for dyn Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operator")
    }
}
