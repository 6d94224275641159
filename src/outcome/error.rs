//! The public errors, one per verb. An error that concerns an event hands the event back.
//!
//! What lives here: what can go wrong and how it is worded. What does not: the checks themselves (they stand
//! beside the type that they protect).

use std::fmt;
use std::sync::Arc;

use super::verdict::SubscriptionId;
use crate::event::Event;
pub use crate::event::{BuildError, DecodeError, Invalid, Problem};

/// Why an event was not published. The event comes back, so that it can be published again.
///
/// Three outcomes are possible: accepted (no error), *rejected* (nothing of the event stays anywhere) and *unknown*
/// ([`Unknown`](Self::Unknown): the back end's answer was lost; publish the same event again, its id makes that safe).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The broker was not started, or it has stopped.
    #[error("broker is not running")]
    NotRunning {
        /// The event.
        event: Box<Event>,
    },
    /// The [global broker](crate::global) is disabled by configuration.
    #[error("the event broker is disabled")]
    Disabled {
        /// The event.
        event: Box<Event>,
    },
    /// There is no room: in a subscription's queue, or because `max_in_flight` events are not settled yet.
    #[error("event queue is full: {limit}")]
    Full {
        /// The event.
        event: Box<Event>,
        /// Which bound was reached.
        limit: FullLimit,
    },
    /// The event breaks a bound of this broker.
    #[error("invalid event: {reason}")]
    Invalid {
        /// The event.
        event: Box<Event>,
        /// The field and the bound.
        reason: Invalid,
    },
    /// Its id is known, with other content.
    #[error("event {} is known with other content", event.id())]
    IdConflict {
        /// The event.
        event: Box<Event>,
    },
    /// A `publish_sync` from inside a handler would wait for that handler. Nothing has run.
    #[error("publish_sync from a handler of {name} would wait for that handler")]
    WouldDeadlock {
        /// The event.
        event: Box<Event>,
        /// The subscription that would wait for its own caller.
        name: Arc<str>,
    },
    /// The back end refused the event.
    #[error("the back end refused the event: {reason}")]
    Rejected {
        /// The event.
        event: Box<Event>,
        /// What it said.
        reason: String,
    },
    /// The back end's answer was lost or did not come in time: the event may be held or not.
    #[error("the back end did not answer, the event may be held or not: {reason}")]
    Unknown {
        /// The event.
        event: Box<Event>,
        /// What happened.
        reason: String,
    },
}

/// The bound behind [`PublishError::Full`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FullLimit {
    /// The queue of a subscription, or its waiting retries.
    Subscription {
        /// Its name.
        name: Arc<str>,
        /// The queue's capacity.
        capacity: u64,
    },
    /// Events in flight.
    InFlight {
        /// `max_in_flight`.
        max: u64,
    },
    /// Events that wait for the back end.
    Mirror {
        /// The bound.
        max: usize,
    },
    /// Deliveries that wait at the back end for one subscription.
    Backlog {
        /// `max_backlog`.
        max: u64,
    },
}

impl fmt::Display for FullLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscription { name, capacity } => {
                write!(f, "subscription {name} has no room (queue_capacity {capacity})")
            }
            Self::InFlight { max } => write!(f, "max_in_flight {max} events are not settled yet"),
            Self::Mirror { max } => write!(f, "{max} events wait for the back end"),
            Self::Backlog { max } => write!(f, "a subscription at the back end is max_backlog {max} events behind"),
        }
    }
}

impl PublishError {
    /// The event that was not published.
    pub fn event(&self) -> &Event {
        match self {
            Self::NotRunning { event }
            | Self::Disabled { event }
            | Self::Full { event, .. }
            | Self::Invalid { event, .. }
            | Self::IdConflict { event }
            | Self::WouldDeadlock { event, .. }
            | Self::Rejected { event, .. }
            | Self::Unknown { event, .. } => event,
        }
    }

    /// Hands the event back.
    pub fn into_event(self) -> Event {
        match self {
            Self::NotRunning { event }
            | Self::Disabled { event }
            | Self::Full { event, .. }
            | Self::Invalid { event, .. }
            | Self::IdConflict { event }
            | Self::WouldDeadlock { event, .. }
            | Self::Rejected { event, .. }
            | Self::Unknown { event, .. } => *event,
        }
    }

    /// A word for it, stable across versions: `not_running`, `disabled`, `queue_full`, `invalid`, `id_conflict`, `would_deadlock`,
    /// `rejected`, `unknown`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotRunning { .. } => "not_running",
            Self::Disabled { .. } => "disabled",
            Self::Full { .. } => "queue_full",
            Self::Invalid { .. } => "invalid",
            Self::IdConflict { .. } => "id_conflict",
            Self::WouldDeadlock { .. } => "would_deadlock",
            Self::Rejected { .. } => "rejected",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Whether there was no room: the same event may be accepted a moment later.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

/// Why a broker could not be built or started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is outside its bounds.
    #[error("invalid setting: {0}")]
    Invalid(#[from] Invalid),
    /// It runs already.
    #[error("broker already running")]
    AlreadyRunning,
    /// It has been stopped, which is final: build another one.
    #[error("broker has stopped; build another one")]
    Stopped,
    /// Another live process has the configured `instance_id` at the back end.
    #[error("instance_id {id} is taken by another live process")]
    InstanceTaken {
        /// The name.
        id: String,
    },
    /// The operating system refused a thread.
    #[error("cannot start thread {name}: {reason}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What it said.
        reason: String,
    },
}

/// Why a subscription was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The pattern or an option is malformed or outside its bounds.
    #[error("invalid subscription: {0}")]
    Invalid(#[from] Invalid),
    /// Another subscription of this broker has the name.
    #[error("subscription name {name} is taken by pattern {pattern}")]
    NameTaken {
        /// The name.
        name: String,
        /// The pattern of the other one.
        pattern: String,
    },
    /// The broker has stopped.
    #[error("broker has stopped")]
    Stopped,
    /// There is no [global broker](crate::global) yet.
    #[error("the global event broker is not initialised")]
    NotInitialised,
    /// The [global broker](crate::global) is disabled by configuration.
    #[error("the event broker is disabled")]
    Disabled,
    /// The back end does not offer what was asked for.
    #[error("the back end {provider} does not offer {feature}")]
    Unsupported {
        /// Which back end.
        provider: String,
        /// What was asked for.
        feature: &'static str,
    },
    /// The back end refused the subscription.
    #[error("the back end {provider} refused the subscription: {reason}")]
    Refused {
        /// Which back end.
        provider: String,
        /// What it said.
        reason: String,
    },
    /// The operating system refused a thread for a dedicated subscription.
    #[error("cannot start thread {name}: {reason}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What it said.
        reason: String,
    },
}

/// No subscription has this id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subscription not found: {id}")]
pub struct UnknownSubscription {
    /// The id.
    pub id: SubscriptionId,
}

/// Why a dead letter was not requeued. It stays where it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequeueError {
    /// There is no such letter: requeued, purged or fallen out.
    #[error("dead letter not found: {id}")]
    NotFound {
        /// Its id.
        id: u64,
    },
    /// The subscription that failed was removed, and none has its name.
    #[error("dead letter {id}: subscription {name} does not exist any more")]
    SubscriptionGone {
        /// The letter's id.
        id: u64,
        /// The subscription's name.
        name: Arc<str>,
    },
    /// The broker was not started, or it has stopped.
    #[error("broker is not running")]
    NotRunning,
    /// The back end that keeps the letter did not do it.
    #[error(transparent)]
    BackEnd(#[from] BackendError),
}

/// Why a stream yields nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Nothing came in time.
    #[error("no event arrived in time")]
    Timeout,
    /// The broker has stopped, and everything was read.
    #[error("the stream has ended: the broker has stopped")]
    Closed,
}

/// Why a call of a back end failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// It can't be reached, is full or is not ready. Trying again later may help.
    #[error("back end unavailable: {0}")]
    Unavailable(String),
    /// It refused the request, and will refuse it again.
    #[error("back end refused: {0}")]
    Refused(String),
    /// It does not offer what was asked for.
    #[error("the back end {provider} does not offer {feature}")]
    Unsupported {
        /// Which back end.
        provider: String,
        /// What was asked for.
        feature: &'static str,
    },
}
