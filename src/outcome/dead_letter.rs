//! Dead letters: deliveries that have used up their attempts or failed permanently.
//!
//! A back end keeps the dead letters of its leases; this process keeps all others. The broker lists, requeues and
//! purges both together.

use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use super::verdict::SubscriptionId;
use crate::event::{Event, EventId, Invalid, Pattern, Problem};

/// The type of the event that is published for each dead letter.
pub(crate) const NOTICE_TYPE: &str = "eventbroker.dead_letter";

/// Why a delivery became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// Every attempt failed.
    Exhausted,
    /// The handler reported a permanent failure.
    Permanent,
    /// The process crashed while it handled the event, and three more times after the delivery came back.
    CrashLoop,
    /// The back end refused an event that was accepted into the buffer.
    /// See [`Confirm::Buffered`](crate::Confirm::Buffered).
    MirrorRejected,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Exhausted, Self::Permanent, Self::CrashLoop, Self::MirrorRejected];

    /// The reason as text: `exhausted`, `permanent`, `crash_loop`, `mirror_rejected`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Permanent => "permanent",
            Self::CrashLoop => "crash_loop",
            Self::MirrorRejected => "mirror_rejected",
        }
    }
}

impl FromStr for DeadReason {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word).ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            Invalid::new("reason", Problem::OutOfBounds(format!("is not one of {words}")))
        })
    }
}

/// A delivery that is not retried any more, unless it is requeued.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The number of the letter. Later letters have higher numbers.
    /// A letter that the back end keeps has the same number for every instance. With a back end, the letters of this
    /// process are numbered from [`FIRST_LOCAL`](Self::FIRST_LOCAL).
    pub id: u64,
    /// The event, with the progress that it had when the delivery failed.
    /// If the back end keeps the letter, the event as it is stored there.
    pub event: Event,
    /// This broker's subscription that failed, or one of the same name.
    pub subscription: Option<SubscriptionId>,
    /// The subscription's name; `mirror` for a [refused](DeadReason::MirrorRejected) event.
    pub name: Arc<str>,
    /// Why it is dead.
    pub reason: DeadReason,
    /// Calls of the handler.
    pub attempts: u32,
    /// The errors of attempts, oldest first; of over 20, the first and the last 19.
    pub errors: Vec<AttemptError>,
    /// When the first attempt failed.
    pub first_failed_at: SystemTime,
    /// When the delivery became a dead letter.
    pub dead_at: SystemTime,
    /// How often the delivery was requeued before.
    pub requeues: u32,
}

impl DeadLetter {
    /// The first number of letters that a process with a back end keeps itself: 2^52.
    pub const FIRST_LOCAL: u64 = 1 << 52;

    /// Creates a letter dated now, without attempts, for back ends to complete.
    pub fn new(id: u64, event: Event, name: impl Into<Arc<str>>, reason: DeadReason) -> Self {
        let now = SystemTime::now();
        Self {
            id,
            event,
            subscription: None,
            name: name.into(),
            reason,
            attempts: 0,
            errors: Vec::new(),
            first_failed_at: now,
            dead_at: now,
            requeues: 0,
        }
    }
}

/// The error of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptError {
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// When it failed.
    pub at: SystemTime,
    /// The handler's error, or the panic's message.
    pub message: String,
}

impl AttemptError {
    /// Creates the error of an attempt, for back ends.
    pub fn new(attempt: u32, at: SystemTime, message: impl Into<String>) -> Self {
        Self { attempt, at, message: message.into() }
    }
}

/// Selects dead letters.
/// All conditions must hold; the default matches every letter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeadLetterFilter {
    /// Only letters of the subscription with this name.
    pub name: Option<String>,
    /// Only letters of the event with this id.
    pub event_id: Option<EventId>,
    /// Only letters whose event type matches this pattern.
    pub event_type: Option<Pattern>,
    /// Only letters with this reason.
    pub reason: Option<DeadReason>,
    /// Only letters with a higher number: the cursor of a listing.
    pub after: Option<u64>,
    /// The most letters, oldest first. Default (`None`): all.
    /// A listing returns at most 10,000.
    pub limit: Option<usize>,
}

impl DeadLetterFilter {
    /// The most letters of a listing.
    pub const MAX_LIMIT: usize = 10_000;

    /// The limit of a listing, default and bound applied.
    pub fn effective_limit(&self) -> usize {
        self.limit.unwrap_or(usize::MAX).min(Self::MAX_LIMIT)
    }

    /// Whether a letter matches all conditions, the limit aside.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        self.event_id.as_ref().is_none_or(|id| id == letter.event.id())
            && self.name.as_deref().is_none_or(|name| *name == *letter.name)
            && self.event_type.as_ref().is_none_or(|pattern| pattern.matches(letter.event.event_type().as_str()))
            && self.reason.is_none_or(|reason| reason == letter.reason)
            && self.after.is_none_or(|after| letter.id > after)
    }
}
