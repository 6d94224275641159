//! Dead letters: deliveries that used up their attempts or failed for good. Listed, counted, taken out again; bounded.
//!
//! Here are those that this process keeps: all of them without a back end, else those of deliveries that no back end handed over.
//! Requeueing, which makes a delivery of a letter again, is in `settle`; both kinds together in `operator`.

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
    /// The handler said that it will always fail.
    Permanent,
    /// The process ended during the call, again and again.
    CrashLoop,
    /// The back end finally refused the event, which was accepted with [`Confirm::Buffered`](crate::Confirm::Buffered).
    MirrorRejected,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Exhausted, Self::Permanent, Self::CrashLoop, Self::MirrorRejected];

    /// As a word: `exhausted`, `permanent`, `crash_loop`, `mirror_rejected`.
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
            Invalid::new("reason", Problem::OutOfBounds(format!("is none of {words}")))
        })
    }
}

/// A delivery that will not be tried again, unless it is requeued.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its number; later ones have higher numbers. One that the back end keeps has the same number for every instance; with a back
    /// end, those of this process are counted from [`FIRST_LOCAL`](Self::FIRST_LOCAL).
    pub id: u64,
    /// The event, as it was when the delivery died, or as the back end knows it.
    pub event: Event,
    /// The subscription that failed, or has its name, if this broker has one.
    pub subscription: Option<SubscriptionId>,
    /// Its name; `mirror` for an event that the back end [refused](DeadReason::MirrorRejected).
    pub name: Arc<str>,
    /// Why.
    pub reason: DeadReason,
    /// Calls of the handler.
    pub attempts: u32,
    /// The error of each attempt, oldest first; of more than 20, the first and the last 19.
    pub errors: Vec<AttemptError>,
    /// When the first attempt failed.
    pub first_failed_at: SystemTime,
    /// When it died.
    pub dead_at: SystemTime,
    /// How often it was requeued before.
    pub requeues: u32,
}

impl DeadLetter {
    /// The first number of those that a broker with a back end keeps by itself: 2^52.
    pub const FIRST_LOCAL: u64 = 1 << 52;

    /// A letter that died just now of nothing known, for back ends to fill in.
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
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it failed.
    pub at: SystemTime,
    /// The handler's message, or the panic's.
    pub message: String,
}

impl AttemptError {
    /// The error of an attempt, for back ends.
    pub fn new(attempt: u32, at: SystemTime, message: impl Into<String>) -> Self {
        Self { attempt, at, message: message.into() }
    }
}

/// Which dead letters are meant. All conditions must hold; the default matches every one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeadLetterFilter {
    /// Only of the subscription with this name.
    pub name: Option<String>,
    /// Only of the event with this id.
    pub event_id: Option<EventId>,
    /// Only events whose type matches.
    pub event_type: Option<Pattern>,
    /// Only with this reason.
    pub reason: Option<DeadReason>,
    /// Only those with a higher id: the cursor of a listing.
    pub after: Option<u64>,
    /// The most letters, oldest first. Default (`None`): all; of a listing 10,000, and at most that.
    pub limit: Option<usize>,
}

impl DeadLetterFilter {
    /// The longest listing.
    pub const MAX_LIMIT: usize = 10_000;

    /// The limit of a listing.
    pub fn effective_limit(&self) -> usize {
        self.limit.unwrap_or(usize::MAX).min(Self::MAX_LIMIT)
    }

    /// Whether a letter is meant, the limit aside.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        self.event_id.as_ref().is_none_or(|id| id == letter.event.id())
            && self.name.as_deref().is_none_or(|name| *name == *letter.name)
            && self.event_type.as_ref().is_none_or(|pattern| pattern.matches(letter.event.event_type().as_str()))
            && self.reason.is_none_or(|reason| reason == letter.reason)
            && self.after.is_none_or(|after| letter.id > after)
    }
}
