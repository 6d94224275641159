//! What operators ask of a back end, and what it takes to answer: dead letters of every instance, deliveries made again, the
//! backlog of each subscription, events as they come. What is done with the answers is in `crate::operator`.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::config::StartPosition;
use crate::event::{Event, EventId, Pattern};
use crate::outcome::{BackEndStats, BackendError, DeadLetter, DeadLetterFilter};

/// The operators' side of a back end that keeps dead letters. Every verb is about the consumer group that the provider was opened
/// for, may be called from any thread, and may block for the back end's own time limit.
///
/// A dead letter is what [`LeaseOutcome::Dead`](super::LeaseOutcome::Dead) told of a delivery. It has a number below
/// [`FIRST_LOCAL`](DeadLetter::FIRST_LOCAL) that no later one gets, and later ones have higher numbers.
pub trait Operator: Send + Sync {
    /// The dead letters that match, in the order of their numbers, at most [`DeadLetterFilter::effective_limit`] of them.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError>;
    /// Makes deliveries of 1 to 256 dead letters again, for the subscriptions that failed, with no attempt made. Returns the
    /// numbers of those that were there; a subscription that was removed took its letters along.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn requeue(&self, dead_letters: &[u64]) -> Result<Vec<u64>, BackendError>;
    /// Forgets 1 to 256 dead letters; their events stay failed. Returns how many were there.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn purge(&self, dead_letters: &[u64]) -> Result<u64, BackendError>;
    /// Makes deliveries again of events that the subscription's pattern matches and whose delivery is not open, oldest first;
    /// with `dry_run` it only counts them. Only asked of a back end that [can](super::Capabilities::replay).
    ///
    /// # Errors
    /// [`BackendError::Refused`] if the group has no such subscription, or the range begins after an event that is not held.
    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError>;
    /// What waits, for each subscription of every group, and totals.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn stats(&self) -> Result<BackEndStats, BackendError>;
    /// A view of the events that match, whoever publishes them, on a connection of its own. Only asked of a back end that
    /// [can](super::Capabilities::tail).
    ///
    /// # Errors
    /// [`BackendError::Refused`] if it should begin after an event that is not held.
    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn Tail>, BackendError>;
}

/// Events as they come. No delivery: nothing is leased or settled.
pub trait Tail: Send {
    /// The next events, 1 to `max`, in the order in which the back end has them; waits for the first at most for `wait`, and then
    /// returns none.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`]; the next call goes on at the same place.
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError>;
}

/// Which events are delivered again, to which subscription. All conditions must hold.
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
    /// Only events that were stored after the one with this id, which must be held: the cursor of a replay.
    pub after: Option<EventId>,
    /// Only events that were stored before the one with this id, which must be held, and that one.
    pub until: Option<EventId>,
    /// Only events whose type matches, besides the subscription's own pattern.
    pub event_type: Option<Pattern>,
    /// The most deliveries. Default 1,000; at most 100,000.
    pub limit: usize,
}

impl Replay {
    /// The most deliveries of one replay.
    pub const MAX_LIMIT: usize = 100_000;

    /// All events of a subscription, the first 1,000 of them.
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

/// What a replay has done, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// Deliveries that were made again.
    pub deliveries: u64,
    /// Where the next replay goes on ([`Replay::after`]), if the limit was reached.
    pub next: Option<EventId>,
}

impl Replayed {
    /// So many deliveries, and where to go on if there may be more.
    pub fn new(deliveries: u64, next: Option<EventId>) -> Self {
        Self { deliveries, next }
    }
}

impl fmt::Debug for dyn Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operator")
    }
}
