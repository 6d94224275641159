//! Deliveries that a back end hands over for a time: how many are wanted, what one is, and how it ends. Who takes them, runs them and extends
//! them is not told here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::outcome::{AttemptError, DeadReason};

/// How many deliveries a subscription can take at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Demand {
    /// The subscription's name.
    pub subscription: Arc<str>,
    /// At least 1.
    pub deliveries: usize,
}

impl Demand {
    pub(crate) fn new(subscription: Arc<str>, deliveries: usize) -> Self {
        Self { subscription, deliveries }
    }
}

/// A delivery that the back end handed over for a time.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Lease {
    /// What the bridge calls it by.
    pub token: LeaseToken,
    /// The subscription's name.
    pub subscription: Arc<str>,
    /// The event.
    pub event: Event,
    /// An earlier lease on this delivery was lost: its holder may have died of it.
    pub suspect: bool,
    /// Calls that were [marked](super::Settler::mark) and never came to an end.
    pub crashes: u32,
    /// Calls of the handler before this lease, of a delivery that was [deferred](LeaseOutcome::Deferred).
    pub attempts: u32,
    /// What they failed of, oldest first.
    pub errors: Vec<AttemptError>,
    /// From when on it counts: not after the back end has begun it.
    pub asked: Instant,
}

impl Lease {
    /// A lease on the delivery of `event` to a subscription, which counts from now on.
    pub fn new(token: LeaseToken, subscription: impl Into<Arc<str>>, event: Event) -> Self {
        let (subscription, asked) = (subscription.into(), Instant::now());
        Self { token, subscription, event, suspect: false, crashes: 0, attempts: 0, errors: Vec::new(), asked }
    }

    /// The same if the back end was asked for it at that time: a process that stood still while it waited for the answer, or while it read
    /// it, does not take a lease for good that has ended meanwhile.
    #[must_use]
    pub fn asked_at(mut self, time: Instant) -> Self {
        self.asked = time;
        self
    }

    /// The same for a delivery whose lease was lost before, with the number of marked calls that never came to an end.
    #[must_use]
    pub fn suspected(mut self, crashes: u32) -> Self {
        self.suspect = true;
        self.crashes = crashes;
        self
    }

    /// The same for a delivery that was [deferred](LeaseOutcome::Deferred), with what was told then: its next attempt is one more than
    /// `attempts`, and its next error comes after `errors`.
    #[must_use]
    pub fn tried(mut self, attempts: u32, errors: Vec<AttemptError>) -> Self {
        self.attempts = attempts;
        self.errors = errors;
        self
    }
}

/// Names a lease among those of one provider; what it means is the bridge's own affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseToken(pub u64);

/// How a leased delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseOutcome {
    /// Handled or skipped: acknowledge it.
    Done {
        /// Calls of the handler; 0 if it was settled without one.
        attempts: u32,
    },
    /// A dead letter: acknowledge it, and keep what is told here.
    Dead {
        /// Why.
        reason: DeadReason,
        /// Calls of the handler.
        attempts: u32,
        /// The last error.
        error: String,
        /// The error of each attempt, oldest first; of more than 20, the first and the last 19.
        errors: Vec<AttemptError>,
    },
    /// Not handled: it goes back, and is no failed attempt. A mark that it has is taken back.
    Released,
    /// Failed, and to be tried again: acknowledge it, and hand it over again, to any member, as a lease that was
    /// [tried](Lease::tried), not before `delay` is over. Its event stays open until then. Only where
    /// [`deferred_retries`](super::Capabilities::deferred_retries) are offered.
    Deferred {
        /// Longer than the lease time; at most 7 days.
        delay: Duration,
        /// Calls of the handler so far.
        attempts: u32,
        /// The error of each attempt, oldest first; of more than 20, the first and the last 19.
        errors: Vec<AttemptError>,
    },
}

/// The end of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settlement {
    /// Which lease.
    pub token: LeaseToken,
    /// How it ended.
    pub outcome: LeaseOutcome,
}

impl Settlement {
    pub(crate) fn new(token: LeaseToken, outcome: LeaseOutcome) -> Self {
        Self { token, outcome }
    }
}
