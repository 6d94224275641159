//! The messages that this provider acknowledged lately. A message that comes again after its acknowledgement is not handled again.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use super::held_messages::MessageKey;
use super::ring::Ring;

/// The messages that were acknowledged lately, by the durable name of their subscription.
#[derive(Default)]
pub(crate) struct RecentAcks(Mutex<HashMap<String, Ring<MessageKey>>>);

impl RecentAcks {
    pub(crate) fn add<'a>(&self, acked: impl Iterator<Item = (&'a str, MessageKey)>) {
        let mut recent = self.0.lock();
        for (durable, key) in acked {
            match recent.get_mut(durable) {
                Some(ring) => ring.add(key),
                None => recent.entry(durable.to_owned()).or_default().add(key),
            }
        }
    }

    /// The sequences of a consumer's messages behind `ack_floor`, up to `last`.
    pub(crate) fn of_consumer(&self, durable: &str, consumer: &str, ack_floor: u64, last: u64) -> HashSet<u64> {
        let recent = self.0.lock();
        let all = recent.get(durable).into_iter().flat_map(Ring::newest_first);
        all.filter(|it| (ack_floor + 1..=last).contains(&it.1) && *it.0 == *consumer).map(|it| it.1).collect()
    }

    pub(crate) fn contains(&self, durable: &str, key: &MessageKey) -> bool {
        self.0.lock().get(durable).is_some_and(|ring| ring.newest_first().any(|it| it.1 == key.1 && it == key))
    }
}
