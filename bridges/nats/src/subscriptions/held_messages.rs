//! The held messages: handed out under a lease, and not settled.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use eventbroker::Event;
use parking_lot::{Mutex, MutexGuard};

use super::delivery::PulledDelivery;
use super::recent_acks::RecentAcks;
use crate::jetstream::{Ack, Consumer};
use crate::settings::{Hook, LeaseTimes};

/// A message under a lease.
#[derive(Debug, Clone)]
pub(crate) struct HeldMessage {
    pub(crate) consumer: Arc<Consumer>,
    /// The name of the subscription.
    pub(crate) name: Arc<str>,
    /// How often it was a dead letter before.
    pub(crate) requeues: u32,
    pub(crate) delivery: PulledDelivery,
    /// Its verdict is on its way to the server.
    pub(crate) is_ending: bool,
    /// Its last extension came so late that the core may have given it up.
    pub(crate) is_late: bool,
    pub(crate) event: Event,
}

/// A message of a consumer. The time of storing tells it from a message with the same sequence in a stream that was created again.
pub(crate) type MessageKey = (Arc<str>, u64, SystemTime);

impl HeldMessage {
    /// Its lease was extended by a call that began at `began`. A late extension counts only if the next one comes too: by then the core has said
    /// whether it gave the delivery up. Until it counts, the message [stops its partition](LeaseTimes::stops_partition).
    pub(crate) fn extend(&mut self, began: Instant, times: LeaseTimes) {
        self.is_late = !self.is_late && times.is_late(self.delivery.leased_at);
        if !self.is_late {
            self.delivery.leased_at = began;
        }
    }

    fn key(&self) -> MessageKey {
        (Arc::clone(&self.consumer.id), self.delivery.sequence, self.delivery.stored_at)
    }

    pub(crate) fn ack(&self, verb: &'static [u8]) -> Ack {
        self.delivery.ack(&self.consumer, verb)
    }
}

/// The held messages, by the token of their lease, and those that were settled lately.
pub(crate) struct HeldMessages {
    messages: Mutex<HashMap<u64, HeldMessage>>,
    next_token: AtomicU64,
    moving: Mutex<()>,
    pub(crate) recent_acks: RecentAcks,
    /// Called with the number of messages that were settled.
    on_settled: Hook<usize>,
}

impl HeldMessages {
    pub(crate) fn new(on_settled: Hook<usize>) -> Self {
        Self {
            messages: Mutex::default(),
            next_token: AtomicU64::new(1),
            moving: Mutex::default(),
            recent_acks: RecentAcks::default(),
            on_settled,
        }
    }

    /// Locked while messages move from the pull buffer to here: in between they are in neither.
    pub(crate) fn lock_moves(&self) -> MutexGuard<'_, ()> {
        self.moving.lock()
    }

    /// Adds a message, and returns the token of its lease.
    pub(crate) fn add(&self, message: HeldMessage) -> u64 {
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        self.messages.lock().insert(token, message);
        token
    }

    /// The messages by token, for changes of several.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<u64, HeldMessage>> {
        self.messages.lock()
    }

    /// The server has processed the acknowledgements of these messages.
    pub(crate) fn settle(&self, tokens: &[u64]) {
        let mut messages = self.messages.lock();
        let ended: Vec<HeldMessage> = tokens.iter().filter_map(|token| messages.remove(token)).collect();
        // Under the lock: a thread that finds a message not held has to find it here.
        self.recent_acks.add(ended.iter().map(|held| (&*held.consumer.durable, held.key())));
        drop(messages);
        (self.on_settled)(ended.len());
    }

    pub(crate) fn keys(&self) -> HashSet<MessageKey> {
        self.messages.lock().values().map(HeldMessage::key).collect()
    }

    /// The sequences of a consumer's messages, those that count.
    pub(crate) fn of_consumer(&self, consumer: &Consumer, counts: impl Fn(&HeldMessage) -> bool) -> HashSet<u64> {
        let messages = self.messages.lock();
        let of_consumer = messages.values().filter(|held| held.consumer.id == consumer.id && counts(held));
        of_consumer.map(|held| held.delivery.sequence).collect()
    }

    /// The number of messages of each partition of a subscription; the largest number for a partition that a lease without an extension
    /// [stops](LeaseTimes::stops_partition).
    pub(crate) fn by_partition(&self, durable: &str, times: LeaseTimes) -> HashMap<u32, usize> {
        let now = Instant::now();
        let mut count = HashMap::new();
        for held in self.messages.lock().values().filter(|held| held.consumer.durable == durable) {
            let Some(partition) = held.consumer.partition else { continue };
            let count: &mut usize = count.entry(partition).or_default();
            let stops = times.stops_partition(now - held.delivery.leased_at);
            *count = if stops { usize::MAX } else { count.saturating_add(1) };
        }
        count
    }

    /// The partitions of a subscription with a held message.
    pub(crate) fn partitions(&self, durable: &str) -> BTreeSet<u32> {
        let messages = self.messages.lock();
        let of_it = messages.values().filter(|held| held.consumer.durable == durable);
        of_it.filter_map(|held| held.consumer.partition).collect()
    }
}
