//! A consumer that messages are asked of, and what has come of them, as the [intake](crate::consume::pull_buffer) keeps it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subject;
use futures_channel::oneshot;

use crate::jetstream::message::{Ack, Entry};
use crate::settle::lease_record::Known;
use crate::subscriptions::Leg;

/// A message that was delivered, and waits to be taken.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) entry: Entry,
    pub(crate) reply: Arc<str>,
    pub(crate) delivered: u64,
    /// Which of the consumer's deliveries it is.
    pub(crate) delivery: u64,
    pub(crate) known: Known,
    /// When its lease began, or was extended.
    pub(crate) fresh: Instant,
    /// The connection on which it has come.
    pub(crate) generation: u64,
}

impl Arrived {
    pub(crate) fn ack(&self, consumer: Arc<str>, verb: &'static [u8]) -> Ack {
        Ack { consumer, to: Arc::clone(&self.reply), verb, generation: self.generation }
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
    /// What was on its way when the connection was lost, or in other hands, comes before anything else.
    pub(crate) hold: Option<Hold>,
    /// How often it was held up.
    pub(crate) holds: u64,
    /// The last of the consumer's deliveries that has come, if it has one owner.
    pub(crate) last: Option<u64>,
    /// Messages of which so many deliveries were lost on their way: nobody has begun them.
    pub(crate) spared: HashMap<u64, u64>,
}

/// Why nothing is handed out for a moment.
#[derive(Debug)]
pub(crate) enum Hold {
    /// What was lost on its way is to come back.
    Lost {
        /// It is not known yet what was lost.
        is_open: bool,
        lost: HashSet<u64>,
        until: Instant,
    },
    /// Of a consumer with one owner: everything that the server waits for is to be here.
    Whole {
        /// Tells it from earlier ones.
        number: u64,
        /// How many were in other hands at the last look, but for those that have come since.
        missing: Option<usize>,
        /// The last that came had been in other hands: more of them may be there.
        comes_back: bool,
        looked: Option<Instant>,
    },
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
        if matches!(&self.hold, Some(Hold::Lost { is_open: false, lost, .. }) if lost.is_empty()) {
            self.go_on();
        }
    }

    /// Something of a consumer with one owner may be in other hands: nothing is handed out until everything is here.
    pub(crate) fn hold(&mut self) {
        if self.leg.partition.is_some() {
            self.holds += 1;
            self.hold = Some(Hold::Whole { number: self.holds, missing: None, comes_back: true, looked: None });
        }
    }

    /// How many are to be on their way, of what there is room for. What others have had goes first; as long as none of that is there, one is
    /// enough to see when it is: what is new would only pile up here.
    pub(crate) fn wanted(&self, room: usize) -> usize {
        match &self.hold {
            Some(Hold::Whole { missing: Some(missing), comes_back, .. }) => {
                if *comes_back {
                    *missing
                } else {
                    1
                }
            }
            _ => room.saturating_sub(self.waiting.len()),
        }
    }

    /// Notes what has come. Of a consumer with one owner nothing is delivered in between: that would be in other hands.
    pub(crate) fn count(&mut self, arrived: &[Arrived]) {
        for it in arrived {
            if self.last.is_some_and(|last| it.delivery > last + 1) {
                self.hold();
            }
            self.last = self.last.max(Some(it.delivery));
        }
        if let Some(Hold::Whole { missing, comes_back, looked, .. }) = &mut self.hold {
            *missing = missing.map(|missing| missing.saturating_sub(arrived.len()));
            *comes_back = arrived.last().is_some_and(|last| last.delivered > 1);
            *looked = None;
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
