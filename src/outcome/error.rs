//! The public errors, one per operation. An error about an event returns the event.
//!
//! The checks that produce the errors are beside the types that they protect.

use std::fmt;
use std::sync::Arc;

use super::verdict::SubscriptionId;
use crate::event::Event;
pub use crate::event::{BuildError, DecodeError, Invalid, Problem};

/// Why an event was not published. It contains the event, for another attempt.
///
/// A publish has three outcomes: accepted (no error), *rejected* (the event is stored nowhere) and *unknown*
/// ([`Unknown`](Self::Unknown): the back end's answer was lost). After *unknown*, publish the same event again: its id
/// prevents a second delivery.
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
    /// A queue, a backlog or the number of events in flight has reached its bound.
    #[error("event queue is full: {limit}")]
    Full {
        /// The event.
        event: Box<Event>,
        /// The bound that was reached.
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
    /// An event with this id and other content was accepted before.
    #[error("event {} is known with other content", event.id())]
    IdConflict {
        /// The event.
        event: Box<Event>,
    },
    /// A `publish_sync` from inside a handler would wait for that handler.
    /// No handler was called.
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
        /// The back end's message.
        reason: String,
    },
    /// The back end's answer was lost or late: the event may or may not be stored.
    #[error("the back end did not answer; the event may or may not be stored: {reason}")]
    Unknown {
        /// The event.
        event: Box<Event>,
        /// Why there was no answer.
        reason: String,
    },
}

/// The bound that [`PublishError::Full`] reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FullLimit {
    /// The queue of a subscription is full, or `max_waiting` of its retries wait.
    Subscription {
        /// The subscription's name.
        name: Arc<str>,
        /// The queue's capacity.
        capacity: u64,
    },
    /// Too many events in flight: accepted, neither completed nor failed.
    InFlight {
        /// `max_in_flight`.
        max: u64,
    },
    /// Too many events wait in this process for the back end.
    Mirror {
        /// The most events that may wait.
        max: usize,
    },
    /// Too many deliveries wait at the back end for one subscription.
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
            Self::Backlog { max } => write!(f, "the backlog of a subscription has reached max_backlog {max}"),
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

    /// Returns the event that was not published.
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

    /// The kind of the error as text, stable across versions.
    /// One of `not_running`, `disabled`, `queue_full`, `invalid`, `id_conflict`, `would_deadlock`, `rejected`,
    /// `unknown`.
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

    /// Whether a bound was reached. The same event may be accepted later.
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
    /// The broker is already running.
    #[error("broker already running")]
    AlreadyRunning,
    /// The broker has stopped, which is final: build another one.
    #[error("broker has stopped; build another one")]
    Stopped,
    /// Another live process has claimed the configured `instance_id` at the back end.
    #[error("instance_id {id} is taken by another live process")]
    InstanceTaken {
        /// The `instance_id`.
        id: String,
    },
    /// The operating system refused to start a thread.
    #[error("cannot start thread {name}: {reason}")]
    Thread {
        /// The thread's name.
        name: String,
        /// The system's message.
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
        /// The pattern of the other subscription.
        pattern: String,
    },
    /// The broker has stopped.
    #[error("broker has stopped")]
    Stopped,
    /// The [global broker](crate::global) has not been initialised.
    #[error("the global event broker is not initialised")]
    NotInitialised,
    /// The [global broker](crate::global) is disabled by configuration.
    #[error("the event broker is disabled")]
    Disabled,
    /// The back end does not offer a feature that an option asks for.
    #[error("the back end {provider} does not offer {feature}")]
    Unsupported {
        /// The name of the back end.
        provider: String,
        /// The missing feature.
        feature: &'static str,
    },
    /// The back end refused the subscription.
    #[error("the back end {provider} refused the subscription: {reason}")]
    Refused {
        /// The name of the back end.
        provider: String,
        /// The back end's message.
        reason: String,
    },
    /// The operating system refused to start a thread for a dedicated subscription.
    #[error("cannot start thread {name}: {reason}")]
    Thread {
        /// The thread's name.
        name: String,
        /// The system's message.
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

/// Why a dead letter was not requeued. An existing letter is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequeueError {
    /// No letter has this number. It may have been requeued, purged or evicted.
    #[error("dead letter not found: {id}")]
    NotFound {
        /// The letter's number.
        id: u64,
    },
    /// The subscription that failed was removed, and no other has its name.
    #[error("dead letter {id}: subscription {name} does not exist any more")]
    SubscriptionGone {
        /// The letter's number.
        id: u64,
        /// The subscription's name.
        name: Arc<str>,
    },
    /// The broker was not started, or it has stopped.
    #[error("broker is not running")]
    NotRunning,
    /// The call of the back end that keeps the letter failed.
    #[error(transparent)]
    BackEnd(#[from] BackendError),
}

/// Why a stream yields no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// No event arrived in time.
    #[error("no event arrived in time")]
    Timeout,
    /// The broker has stopped, and all events were read.
    #[error("the stream has ended: the broker has stopped")]
    Closed,
}

/// Why a call of a back end failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The back end is unreachable, full or not ready, or its answer was lost.
    /// Worth a retry; whether the request had an effect is unknown.
    #[error("back end unavailable: {0}")]
    Unavailable(String),
    /// The back end refused the request permanently.
    #[error("back end refused: {0}")]
    Refused(String),
    /// The back end does not offer the feature.
    #[error("the back end {provider} does not offer {feature}")]
    Unsupported {
        /// The name of the back end.
        provider: String,
        /// The missing feature.
        feature: &'static str,
    },
}
