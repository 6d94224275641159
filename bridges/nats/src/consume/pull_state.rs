//! The state of one consumer in the [pull buffer](super::pull_buffer): its requests, the messages that have arrived, and whether they may be
//! handed out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use async_nats::Subject;
use bytes::Bytes;
use futures_channel::oneshot;

use super::transit_wait::TransitWait;
use crate::jetstream::Consumer;
use crate::partitions::{Handover, HandoverEffect, HandoverEvent};
use crate::subscriptions::{GiveBack, PulledDelivery};
use crate::transport::Headers;

/// A message that was delivered and waits to be handed out.
#[derive(Debug, Clone)]
pub(crate) struct PulledMessage {
    pub(crate) subject: Subject,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
    pub(crate) delivery: PulledDelivery,
}

/// The task that reads a consumer.
pub(super) struct ReaderHandle {
    pub(super) generation: u64,
    /// Its drop ends the task.
    pub(super) _stop: oneshot::Sender<()>,
}

/// The pull requests to a consumer.
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
pub(super) struct PullState {
    pub(super) consumer: Arc<Consumer>,
    pub(super) requests: Requests,
    pub(super) waiting: VecDeque<PulledMessage>,
    /// The sequences of messages that have arrived, and whose history is being read.
    pub(super) arriving: Vec<u64>,
    /// Since when there is no room for its messages.
    pub(super) roomless: Option<Instant>,
    pub(super) reader: Option<ReaderHandle>,
    /// The inbox of its requests, the same in each session, so that a request of an earlier session is not lost.
    pub(super) inbox: Option<Subject>,
    /// Without a partition, which includes the consumer of requeues: the wait for messages that were lost, or given back.
    pub(super) transit_wait: Option<TransitWait>,
    /// With a partition: the hand-over to this member, and the time of the last count at its barrier.
    pub(super) handover: Option<Handover>,
    pub(super) counted: Option<Instant>,
    /// The number of deliveries of a message that were lost in transit: no call has begun them.
    pub(super) lost: HashMap<u64, u64>,
}

impl PullState {
    pub(super) fn new(consumer: &Arc<Consumer>) -> Self {
        let mut state = Self {
            consumer: Arc::clone(consumer),
            requests: Requests { outstanding: 0, target: 0, expire_at: Instant::now(), generation: 0 },
            waiting: VecDeque::new(),
            arriving: Vec::new(),
            roomless: None,
            reader: None,
            inbox: None,
            transit_wait: None,
            handover: consumer.partition.map(|_| Handover::claimed()),
            counted: None,
            lost: HashMap::new(),
        };
        state.begin_transit_wait();
        state
    }

    /// Whether its messages may be handed out.
    pub(super) fn is_open(&self) -> bool {
        self.transit_wait.is_none() && self.handover.as_ref().is_none_or(Handover::delivers)
    }

    pub(super) fn has_message_to_take(&self) -> bool {
        self.is_open() && !self.waiting.is_empty() && self.requests.target > 0
    }

    /// Feeds the hand-over with an event, and carries out the reaction as far as it is here.
    pub(super) fn on(&mut self, event: HandoverEvent) -> Option<HandoverEffect> {
        let effect = self.handover.as_mut()?.on(event);
        match effect {
            Some(HandoverEffect::Count) => self.counted = None,
            Some(HandoverEffect::Deliver) => self.sort_waiting(),
            Some(HandoverEffect::Recover | HandoverEffect::GiveBack) | None => {}
        }
        effect
    }

    /// The number of messages to have in transit, with room for `room`. Those that the order waits for are requested also without room.
    pub(super) fn to_request(&self, room: usize) -> usize {
        let at_barrier = self.handover.as_ref().and_then(Handover::to_request);
        at_barrier.unwrap_or_else(|| room.saturating_sub(self.waiting.len()).max(self.missing()))
    }

    /// Takes messages that have arrived. One that comes back goes before the newer ones that wait.
    pub(super) fn add(&mut self, pulled: Vec<PulledMessage>) {
        self.arriving.clear();
        self.requests.outstanding = self.requests.outstanding.saturating_sub(pulled.len());
        for PulledMessage { delivery: PulledDelivery { sequence, number, times_delivered, .. }, .. } in &pulled {
            self.note_back(*sequence);
            self.on(HandoverEvent::Arrived { delivery: *number, is_redelivery: *times_delivered > 1 });
        }
        let comes_back = pulled.iter().any(|it| it.delivery.times_delivered > 1);
        self.waiting.extend(pulled);
        if comes_back {
            self.sort_waiting();
        }
        self.end_transit_wait();
    }

    /// Sorts the messages as the stream has them. A message that was given back may have arrived the first time all the same.
    pub(super) fn sort_waiting(&mut self) {
        let mut waiting: Vec<PulledMessage> = self.waiting.drain(..).collect();
        waiting.sort_by_key(|it| it.delivery.sequence);
        waiting.dedup_by_key(|it| it.delivery.sequence);
        self.waiting = waiting.into();
    }

    /// Ends the task that reads the consumer.
    pub(super) fn stop_reading(&mut self) {
        (self.reader, self.inbox) = (None, None);
        self.begin_transit_wait();
        self.requests.outstanding = 0;
    }

    /// Reads the consumer no more, which releases a partition. Returns the messages that wait, to give them back.
    ///
    /// Another member may own the partition by now. A give-back takes nothing from that owner: it alone reads the partition, so the server
    /// delivers the message to it again, and its hand-out leaves out a message that it holds or has acknowledged.
    pub(super) fn close(&mut self) -> Vec<GiveBack> {
        self.stop_reading();
        let reaction = self.handover.as_mut().map(|it| it.on(HandoverEvent::Released));
        if !matches!(reaction, None | Some(Some(HandoverEffect::GiveBack))) {
            return Vec::new();
        }
        let consumer = Arc::clone(&self.consumer);
        self.waiting.drain(..).map(|it| it.delivery.to_give_back(&consumer)).collect()
    }
}
