//! The public errors, one per verb. An error that concerns an event hands the event back.
//!
//! What lives here: what can go wrong and how it is worded. What does not: the checks themselves (they stand
//! beside the type that they protect).

use std::fmt;
use std::sync::Arc;

use crate::event::Event;
pub use crate::event::{BuildError, DecodeError};
use crate::provider::BackendError;
use crate::verdict::SubscriptionId;

/// Input that was refused at the door: which field, and which bound it broke.
///
/// ```
/// use eventbroker::{Event, Source};
///
/// let error = Event::builder(Source::System, "orders..create").build().unwrap_err();
/// assert_eq!(error.invalid().field, "type");
/// assert_eq!(error.to_string(), "invalid event: type: segment 2 is empty");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The field at fault, by its name in the event's JSON, or `pattern`, or a setting's name.
    pub field: &'static str,
    /// What is wrong with it, with the bound that was broken.
    pub problem: Problem,
}

/// What is wrong with a field. Every bound that was broken is part of the variant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The field must be given.
    Missing,
    /// The text is empty.
    Empty,
    /// The text is too long, in bytes.
    TooLong {
        /// The bound, in bytes.
        max: usize,
        /// What was given, in bytes.
        actual: usize,
    },
    /// There are too many of something: segments, entries.
    TooMany {
        /// What is counted, in the plural.
        what: &'static str,
        /// The bound.
        max: usize,
        /// What was given.
        actual: usize,
    },
    /// The JSON is nested too deeply.
    TooDeep {
        /// The bound, in levels.
        max: usize,
    },
    /// A dotted segment is empty.
    EmptySegment {
        /// Which one, counted from 1.
        position: usize,
    },
    /// A character that is not allowed here.
    Forbidden {
        /// The character.
        character: char,
        /// Its byte offset in the text.
        offset: usize,
    },
    /// A wildcard stands where it has no meaning.
    MisplacedWildcard {
        /// The segment, counted from 1.
        position: usize,
    },
    /// The bytes are not JSON, with the parser's message.
    NotJson(String),
    /// The value is outside its bounds, in words.
    OutOfBounds(String),
}

impl Invalid {
    pub(crate) fn new(field: &'static str, problem: Problem) -> Self {
        Self { field, problem }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Invalid {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "is required"),
            Self::Empty => write!(f, "is empty"),
            Self::TooLong { max, actual } => write!(f, "is {actual} bytes long, at most {max} are allowed"),
            Self::TooMany { what, max, actual } => write!(f, "has {actual} {what}, at most {max} are allowed"),
            Self::TooDeep { max } => write!(f, "is nested more than {max} levels deep"),
            Self::EmptySegment { position } => write!(f, "segment {position} is empty"),
            Self::Forbidden { character, offset } => {
                write!(f, "holds {character:?} at byte {offset}, which is not allowed")
            }
            Self::MisplacedWildcard { position } => write!(
                f,
                "segment {position} holds a wildcard that has no meaning there: `*` must be a whole segment, `**` the last one"
            ),
            Self::NotJson(message) => write!(f, "is not JSON: {message}"),
            Self::OutOfBounds(message) => f.write_str(message),
        }
    }
}

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
