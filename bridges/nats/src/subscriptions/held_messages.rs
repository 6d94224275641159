//! The messages in hand: delivered to this provider, handed out under a lease, and not settled.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_nats::Subject;
use eventbroker::Event;
use parking_lot::{Mutex, MutexGuard};

use super::lease_record::LeaseRecord;
use super::recent_acks::RecentAcks;
use crate::jetstream::{Ack, Consumer};
use crate::settings::Hook;

/// A message in hand.
#[derive(Debug, Clone)]
pub(crate) struct HeldMessage {
    pub(crate) consumer: Arc<Consumer>,
    /// The name of the subscription.
    pub(crate) name: Arc<str>,
    /// How often it was a dead letter before.
    pub(crate) requeues: u32,
    pub(crate) reply: Subject,
    pub(crate) sequence: u64,
    pub(crate) stored_at: SystemTime,
    pub(crate) delivered: u64,
    /// The session of its delivery.
    pub(crate) generation: u64,
    /// The record of its earlier leases, and whether it is stored.
    pub(crate) record: LeaseRecord,
    pub(crate) is_recorded: bool,
    /// Its verdict is on its way to the server.
    pub(crate) is_ending: bool,
    /// The start of its lease, or of the last extension.
    pub(crate) fresh: Instant,
    /// Its last extension came so late that the broker may have given it up.
    pub(crate) is_late: bool,
    pub(crate) event: Event,
}

/// A message of a consumer. The time of storing tells it from a message with the same number in a stream that was created again.
pub(crate) type MessageKey = (Arc<str>, u64, SystemTime);

impl HeldMessage {
    /// Its lease was extended by a call that began at `began`. After a late extension the messages behind it wait until the next one: by then
    /// the broker has said whether it gave the delivery up.
    pub(crate) fn extend(&mut self, began: Instant, lease: Duration) {
        self.is_late = !self.is_late && self.fresh.elapsed() >= lease.mul_f64(0.6);
        if !self.is_late {
            self.fresh = began;
        }
    }

    fn key(&self) -> MessageKey {
        (Arc::clone(&self.consumer.id), self.sequence, self.stored_at)
    }

    pub(crate) fn ack(&self, verb: &'static [u8]) -> Ack {
        let (consumer, to) = (Arc::clone(&self.consumer.id), self.reply.clone());
        Ack { consumer, to, verb, generation: self.generation }
    }
}

/// The messages in hand, by the token of their lease, and those that were settled lately.
#[derive(Debug)]
pub(crate) struct HeldMessages {
    messages: Mutex<HashMap<u64, HeldMessage>>,
    next_token: AtomicU64,
    moving: Mutex<()>,
    pub(crate) recent: RecentAcks,
    /// Called with the number of messages that were settled.
    on_settled: Hook<usize>,
}

impl HeldMessages {
    pub(crate) fn new(on_settled: Hook<usize>) -> Self {
        Self {
            messages: Mutex::default(),
            next_token: AtomicU64::new(1),
            moving: Mutex::default(),
            recent: RecentAcks::default(),
            on_settled,
        }
    }

    /// Held while messages move from the pull buffer to here: in between they are in neither.
    pub(crate) fn lock_moves(&self) -> MutexGuard<'_, ()> {
        self.moving.lock()
    }

    /// Takes a message in hand, and returns the token of its lease.
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
        // Under the lock: whoever finds a message not in hand has to find it here.
        self.recent.add(ended.iter().map(|held| (&*held.consumer.durable, held.key())));
        drop(messages);
        self.on_settled.call(ended.len());
    }

    pub(crate) fn keys(&self) -> HashSet<MessageKey> {
        self.messages.lock().values().map(HeldMessage::key).collect()
    }

    /// The numbers of a consumer's messages, those that count.
    pub(crate) fn of_consumer(&self, consumer: &Consumer, counts: impl Fn(&HeldMessage) -> bool) -> HashSet<u64> {
        let messages = self.messages.lock();
        let of_it = messages.values().filter(|held| held.consumer.id == consumer.id && counts(held));
        of_it.map(|held| held.sequence).collect()
    }

    /// The number of messages of each partition of a subscription. The largest number stands for a partition with a message whose lease was not
    /// extended for `patience`: the broker may give it up soon.
    pub(crate) fn by_partition(&self, durable: &str, patience: Duration) -> HashMap<u32, usize> {
        let now = Instant::now();
        let mut count = HashMap::new();
        for held in self.messages.lock().values().filter(|held| held.consumer.durable == durable) {
            let Some(number) = held.consumer.partition else { continue };
            let count: &mut usize = count.entry(number).or_default();
            *count = if now - held.fresh >= patience { usize::MAX } else { count.saturating_add(1) };
        }
        count
    }

    /// The partitions of a subscription with a message in hand.
    pub(crate) fn partitions(&self, durable: &str) -> BTreeSet<u32> {
        let messages = self.messages.lock();
        messages.values().filter(|it| it.consumer.durable == durable).filter_map(|it| it.consumer.partition).collect()
    }
}
