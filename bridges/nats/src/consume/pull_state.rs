//! The state of one consumer in the [pull buffer](super::pull_buffer): its requests, the messages that have arrived, and whether they may be
//! handed out.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subject;
use futures_channel::oneshot;

use crate::jetstream::ack::NAK;
use crate::jetstream::{Ack, Consumer, StoredMessage};
use crate::partitions::{Effect, Event, Handover};
use crate::subscriptions::{GivenBack, RedeliveryInfo};

/// A message that was delivered and waits to be handed out.
#[derive(Debug, Clone)]
pub(crate) struct PulledMessage {
    pub(crate) message: StoredMessage,
    pub(crate) reply: Subject,
    pub(crate) delivered: u64,
    /// The number of its delivery among all of the consumer.
    pub(crate) delivery: u64,
    pub(crate) info: RedeliveryInfo,
    /// The start of its lease, or of the last extension.
    pub(crate) fresh: Instant,
    /// The session of its delivery.
    pub(crate) generation: u64,
}

impl PulledMessage {
    pub(crate) fn ack(&self, consumer: &Consumer, verb: &'static [u8]) -> Ack {
        let (consumer, to) = (Arc::clone(&consumer.id), self.reply.clone());
        Ack { consumer, to, verb, generation: self.generation }
    }

    pub(crate) fn give_back(&self, consumer: &Arc<Consumer>) -> GivenBack {
        GivenBack {
            consumer: Arc::clone(consumer),
            sequence: self.message.sequence,
            delivered: self.delivered,
            record: self.info.record,
            nak: self.ack(consumer, NAK),
        }
    }

    /// Whether its lease still belongs to this member. The server may have given messages that this process slept over to other members.
    pub(crate) fn is_fresh(fresh: Instant, lease: Duration) -> bool {
        fresh.elapsed() < lease.mul_f64(0.6)
    }
}

/// A consumer's messages are not handed out while messages that were lost in transit come back.
#[derive(Debug)]
pub(super) struct Barrier {
    /// The lost messages, once they are known.
    pub(super) lost: Option<HashSet<u64>>,
    /// The end of the wait.
    pub(super) until: Instant,
}

/// The task that reads a consumer.
#[derive(Debug)]
pub(super) struct ReaderHandle {
    pub(super) generation: u64,
    /// Its drop ends the task.
    pub(super) _stop: oneshot::Sender<()>,
}

/// The pull requests to a consumer.
#[derive(Debug)]
pub(super) struct Requests {
    /// The number of requested messages that have not arrived.
    pub(super) outstanding: usize,
    /// The number of messages to request.
    pub(super) target: usize,
    /// The expiry of the last request.
    pub(super) expire_at: Instant,
    /// The session of the last request; 0 if it has failed.
    pub(super) generation: u64,
}

/// The state of one consumer.
#[derive(Debug)]
pub(super) struct PullState {
    pub(super) consumer: Arc<Consumer>,
    pub(super) requests: Requests,
    pub(super) waiting: VecDeque<PulledMessage>,
    /// Messages that have arrived, and whose history is being read.
    pub(super) arriving: Vec<u64>,
    /// Since when there is no room for its messages.
    pub(super) roomless: Option<Instant>,
    pub(super) reader: Option<ReaderHandle>,
    /// The inbox of its requests, the same in each session, so that a request of an earlier session is not lost.
    pub(super) inbox: Option<Subject>,
    /// Without partitions: the wait for lost messages.
    pub(super) barrier: Option<Barrier>,
    /// With partitions: the hand-over to this member, and the time of the last count at its barrier.
    pub(super) handover: Option<Handover>,
    pub(super) counted: Option<Instant>,
    /// The number of deliveries of a message that were lost in transit: no call has begun them.
    pub(super) lost: HashMap<u64, u64>,
}

impl PullState {
    pub(super) fn new(consumer: &Arc<Consumer>) -> Self {
        Self {
            consumer: Arc::clone(consumer),
            requests: Requests { outstanding: 0, target: 0, expire_at: Instant::now(), generation: 0 },
            waiting: VecDeque::new(),
            arriving: Vec::new(),
            roomless: None,
            reader: None,
            inbox: None,
            barrier: None,
            handover: consumer.partition.map(|_| Handover::claimed()),
            counted: None,
            lost: HashMap::new(),
        }
    }

    /// Whether its messages may be handed out.
    pub(super) fn is_open(&self) -> bool {
        self.barrier.is_none() && self.handover.as_ref().is_none_or(Handover::delivers)
    }

    pub(super) fn has_message_to_take(&self) -> bool {
        self.is_open() && !self.waiting.is_empty() && self.requests.target > 0
    }

    /// Feeds the hand-over with an event, and carries out the reaction as far as it is here.
    pub(super) fn on(&mut self, event: Event) -> Option<Effect> {
        let effect = self.handover.as_mut()?.on(event);
        match effect {
            Some(Effect::Count) => self.counted = None,
            Some(Effect::Deliver) => self.sort_waiting(),
            Some(Effect::Recover | Effect::GiveBack) | None => {}
        }
        effect
    }

    /// The number of messages to have in transit, with room for `room`.
    pub(super) fn wanted(&self, room: usize) -> usize {
        let at_barrier = self.handover.as_ref().and_then(Handover::wanted);
        at_barrier.unwrap_or_else(|| room.saturating_sub(self.waiting.len()))
    }

    /// Takes messages that have arrived.
    pub(super) fn add(&mut self, pulled: Vec<PulledMessage>) {
        self.arriving.clear();
        self.requests.outstanding = self.requests.outstanding.saturating_sub(pulled.len());
        for it in &pulled {
            if let Some(Barrier { lost: Some(lost), .. }) = &mut self.barrier {
                lost.remove(&it.message.sequence);
            }
            if self.handover.is_some() {
                self.on(Event::Arrived { delivery: it.delivery, is_redelivery: it.delivered > 1 });
            }
        }
        self.waiting.extend(pulled);
        self.lift_barrier_if_complete();
    }

    pub(super) fn lift_barrier_if_complete(&mut self) {
        if self.barrier.as_ref().and_then(|it| it.lost.as_ref()).is_some_and(HashSet::is_empty) {
            self.lift_barrier();
        }
    }

    pub(super) fn lift_barrier(&mut self) {
        self.barrier = None;
        self.sort_waiting();
    }

    /// Sorts the messages as the stream has them. A message that was given back may have arrived the first time all the same.
    fn sort_waiting(&mut self) {
        let mut waiting: Vec<PulledMessage> = self.waiting.drain(..).collect();
        waiting.sort_by_key(|it| it.message.sequence);
        waiting.dedup_by_key(|it| it.message.sequence);
        self.waiting = waiting.into();
    }

    /// Ends the reading. Returns the messages that were not handed out.
    pub(super) fn close(&mut self) -> Vec<GivenBack> {
        (self.reader, self.inbox, self.barrier) = (None, None, None);
        self.requests.outstanding = 0;
        self.on(Event::Released);
        // A consumer that is read again later is handed over again.
        self.handover = self.consumer.partition.map(|_| Handover::claimed());
        let consumer = Arc::clone(&self.consumer);
        self.waiting.drain(..).map(|it| it.give_back(&consumer)).collect()
    }
}
