//! A consumer that messages are asked of, and what has come of them, as the [intake](crate::intake) keeps it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subject;
use futures_channel::oneshot;

use crate::js::{Ack, Entry};
use crate::leases::Known;
use crate::registry::Leg;

/// A message that was delivered, and waits to be taken.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) entry: Entry,
    pub(crate) reply: Subject,
    pub(crate) delivered: u64,
    pub(crate) known: Known,
    /// When its lease began, or was extended.
    pub(crate) fresh: Instant,
    /// The connection on which it has come.
    pub(crate) generation: u64,
}

impl Arrived {
    pub(crate) fn ack(&self, consumer: Arc<str>, verb: &'static [u8]) -> Ack {
        Ack { consumer, to: self.reply.clone(), verb, generation: self.generation }
    }
}

/// Whether what has come at a time is still this member's: of what it has slept over, others may have taken something.
pub(crate) fn is_fresh(since: Instant, lease: Duration) -> bool {
    since.elapsed() < lease.mul_f64(0.6)
}

/// A message that nobody takes.
#[derive(Debug, Clone)]
pub(crate) struct Unwanted {
    pub(crate) unit: String,
    pub(crate) again: bool,
    pub(crate) consumer: Arc<str>,
    pub(crate) arrived: Arrived,
}

/// A consumer that messages are asked of.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) leg: Arc<Leg>,
    pub(crate) unit: String,
    /// How many were asked for and have not come.
    pub(crate) outstanding: usize,
    /// How many are to be asked for.
    pub(crate) target: usize,
    /// When the last request has ended.
    pub(crate) until: Instant,
    pub(crate) waiting: VecDeque<Arrived>,
    /// What has come, and is looked at.
    pub(crate) arriving: Vec<u64>,
    /// Since when there is no room for it.
    pub(crate) roomless: Option<Instant>,
    pub(crate) reader: Option<Reader>,
    /// On which connection it was asked last.
    pub(crate) asked: u64,
    /// Where its messages go, also on the next connection: what was asked for on the one before is not lost.
    pub(crate) inbox: Option<Subject>,
    /// What was on its way when the connection was lost comes before anything else.
    pub(crate) hold: Option<Hold>,
    /// Messages of which so many deliveries were lost on their way: nobody has begun them.
    pub(crate) spared: HashMap<u64, u64>,
}

/// Why nothing is handed out for a moment.
#[derive(Debug)]
pub(crate) struct Hold {
    /// It is not known yet what was lost.
    pub(crate) is_open: bool,
    pub(crate) lost: HashSet<u64>,
    pub(crate) until: Instant,
}

/// The task that takes its messages.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) generation: u64,
    /// Ends it, when it is dropped.
    pub(crate) _stop: oneshot::Sender<()>,
}

impl Source {
    /// Goes on when everything is back; nothing is missing only after it was told what is.
    pub(crate) fn look_at_hold(&mut self) {
        if self.hold.as_ref().is_some_and(|hold| hold.lost.is_empty() && !hold.is_open) {
            self.go_on();
        }
    }

    pub(crate) fn go_on(&mut self) {
        self.hold = None;
        // One that was given back may have come the first time all the same.
        let mut waiting: Vec<Arrived> = self.waiting.drain(..).collect();
        waiting.sort_by_key(|arrived| arrived.entry.sequence);
        waiting.dedup_by_key(|arrived| arrived.entry.sequence);
        self.waiting = waiting.into();
    }

    pub(crate) fn close(&mut self) -> Vec<Unwanted> {
        (self.reader, self.inbox, self.hold) = (None, None, None);
        self.outstanding = 0;
        let unwanted = |arrived| Unwanted {
            unit: self.unit.clone(),
            again: self.leg.again,
            consumer: self.leg.ack_name(),
            arrived,
        };
        self.waiting.drain(..).map(unwanted).collect()
    }
}
