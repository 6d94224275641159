//! Leased deliveries as values: the demand for them, the lease, and its outcome. The engine's bridge threads receive,
//! extend and settle them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::outcome::{AttemptError, DeadReason};

/// The free capacity of a subscription, for [`Ingest::receive`](super::Ingest::receive).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Demand {
    /// The subscription's name.
    pub subscription: Arc<str>,
    /// The most deliveries to return: 1 to 1,024.
    pub deliveries: usize,
}

impl Demand {
    pub(crate) fn new(subscription: Arc<str>, deliveries: usize) -> Self {
        Self { subscription, deliveries }
    }
}

/// A delivery that the back end assigns to this instance for a limited time.
///
/// The engine extends the lease with [`Settler::extend`](super::Settler::extend) until it settles it with
/// [`Settler::settle`](super::Settler::settle). It begins no call of the handler once two thirds of the
/// [lease time](super::Settler::lease_time) have passed without an extension, by this process's monotonic clock.
///
/// ```
/// use eventbroker::provider::{Lease, LeaseToken};
/// use eventbroker::{Event, Source};
/// use std::time::Instant;
///
/// let event = Event::builder(Source::System, "shop.orders.create").build()?;
/// let requested = Instant::now();
/// let lease = Lease::new(LeaseToken(7), "mailer", event).asked_at(requested).suspected(1);
/// assert!(lease.suspect && lease.crashes == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Lease {
    /// The bridge's name for this lease.
    pub token: LeaseToken,
    /// The subscription's name.
    pub subscription: Arc<str>,
    /// The event.
    pub event: Event,
    /// An earlier lease was lost: the event may have crashed its member.
    pub suspect: bool,
    /// Earlier [marked](super::Settler::mark) calls that never ended. 3 make it a dead letter.
    pub crashes: u32,
    /// Earlier calls of the handler, if the delivery was [deferred](LeaseOutcome::Deferred).
    pub attempts: u32,
    /// The errors of those calls, oldest first.
    pub errors: Vec<AttemptError>,
    /// When the lease time begins.
    /// Never later than the moment at which the back end granted the lease.
    pub asked: Instant,
}

impl Lease {
    /// Creates a lease on a delivery of `event`. Its time begins now.
    pub fn new(token: LeaseToken, subscription: impl Into<Arc<str>>, event: Event) -> Self {
        let (subscription, asked) = (subscription.into(), Instant::now());
        Self { token, subscription, event, suspect: false, crashes: 0, attempts: 0, errors: Vec::new(), asked }
    }

    /// Sets the time at which the bridge requested the lease from the back end.
    /// A process may be suspended while it waits for the answer or reads it. Counting from the request keeps the engine
    /// from using a lease that has expired meanwhile.
    #[must_use]
    pub fn asked_at(mut self, time: Instant) -> Self {
        self.asked = time;
        self
    }

    /// Marks the delivery as a suspect: an earlier lease on it was lost.
    /// `crashes` counts its [marked](super::Settler::mark) calls that never ended. The engine runs a suspect with a
    /// crash alone among the suspects of the process, so the next crash counts only for that event.
    #[must_use]
    pub fn suspected(mut self, crashes: u32) -> Self {
        self.suspect = true;
        self.crashes = crashes;
        self
    }

    /// Restores the attempts and errors of a delivery that was [deferred](LeaseOutcome::Deferred).
    /// Its next attempt has the number `attempts + 1`, and the next error is appended to `errors`.
    #[must_use]
    pub fn tried(mut self, attempts: u32, errors: Vec<AttemptError>) -> Self {
        self.attempts = attempts;
        self.errors = errors;
        self
    }
}

/// Identifies a lease of one provider. Only the bridge interprets the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseToken(pub u64);

/// How a leased delivery ended, and what the back end does with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseOutcome {
    /// Handled or skipped: acknowledge it.
    Done {
        /// Calls of the handler; 0 if it was settled without one.
        attempts: u32,
    },
    /// Failed permanently: acknowledge it, and store a [dead letter](crate::dead_letter::DeadLetter).
    Dead {
        /// Why it will not be retried.
        reason: DeadReason,
        /// Calls of the handler.
        attempts: u32,
        /// The last error.
        error: String,
        /// The errors of attempts, oldest first; of over 20, the first and the last 19.
        errors: Vec<AttemptError>,
    },
    /// Not handled: make it ready for any member again.
    /// Counts no attempt and removes a mark.
    Released,
    /// To be retried by any member: acknowledge it, and keep it for `delay`.
    /// The back end then delivers it as a [tried](Lease::tried) lease. The event's status stays open meanwhile. Used
    /// only if [`deferred_retries`](super::Capabilities::deferred_retries) is set.
    Deferred {
        /// The delay until the retry.
        /// Longer than the lease time; at most 7 days, jitter aside.
        delay: Duration,
        /// Calls of the handler so far.
        attempts: u32,
        /// The errors of attempts, oldest first; of over 20, the first and the last 19.
        errors: Vec<AttemptError>,
    },
}

/// The outcome of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settlement {
    /// The lease.
    pub token: LeaseToken,
    /// How it ended.
    pub outcome: LeaseOutcome,
}

impl Settlement {
    pub(crate) fn new(token: LeaseToken, outcome: LeaseOutcome) -> Self {
        Self { token, outcome }
    }
}
