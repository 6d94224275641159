//! The dead letters that this process keeps: bounded, listed, counted, and taken out to be requeued.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::SharedRecord;
use crate::outcome::{DeadLetter, DeadLetterFilter, SubscriptionId};

/// The dead letters of one broker.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    capacity: usize,
    next_id: AtomicU64,
    evicted: AtomicU64,
    notices_lost: AtomicU64,
    letters: Mutex<BTreeMap<u64, StoredLetter>>,
}

/// A letter with the record of its event, which is failed because of the letter.
#[derive(Debug)]
pub(crate) struct StoredLetter {
    pub(crate) letter: DeadLetter,
    pub(crate) record: SharedRecord,
}

impl DeadLetters {
    /// Holds at most `capacity` letters. Their ids count from `first`.
    pub(crate) fn new(capacity: usize, first: u64) -> Self {
        Self {
            capacity,
            next_id: AtomicU64::new(first),
            evicted: AtomicU64::new(0),
            notices_lost: AtomicU64::new(0),
            letters: Mutex::new(BTreeMap::new()),
        }
    }

    /// Adds a letter and returns the id that it gets. Evicts the oldest letter beyond the capacity.
    pub(crate) fn add(&self, mut letter: DeadLetter, record: SharedRecord) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        letter.id = id;
        let mut letters = self.letters.lock();
        letters.insert(id, StoredLetter { letter, record });
        let evicted = if letters.len() > self.capacity { letters.pop_first() } else { None };
        drop(letters);
        if evicted.is_some() {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        id
    }

    pub(crate) fn count(&self) -> usize {
        self.letters.lock().len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(crate) fn notices_lost(&self) -> u64 {
        self.notices_lost.load(Ordering::Relaxed)
    }

    pub(crate) fn lose_notice(&self) {
        self.notices_lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn list(&self, filter: &DeadLetterFilter) -> Vec<DeadLetter> {
        let letters = self.letters.lock();
        let matching = letters.values().map(|entry| &entry.letter).filter(|letter| filter.matches(letter));
        matching.take(filter.effective_limit()).cloned().collect()
    }

    pub(crate) fn ids(&self, filter: &DeadLetterFilter) -> Vec<u64> {
        let letters = self.letters.lock();
        let matching = letters.values().map(|entry| &entry.letter).filter(|letter| filter.matches(letter));
        matching.take(filter.limit.unwrap_or(usize::MAX)).map(|letter| letter.id).collect()
    }

    /// Removes the letters that match. Returns their number.
    pub(crate) fn purge(&self, filter: &DeadLetterFilter) -> usize {
        self.ids(filter).into_iter().filter(|id| self.take(*id).is_some()).count()
    }

    pub(crate) fn take(&self, id: u64) -> Option<StoredLetter> {
        self.letters.lock().remove(&id)
    }

    /// The subscription of a letter, `None` inside if the mirror gave the event up, and its name.
    pub(crate) fn subscription(&self, id: u64) -> Option<(Option<SubscriptionId>, Arc<str>)> {
        let letters = self.letters.lock();
        letters.get(&id).map(|entry| (entry.letter.subscription, Arc::clone(&entry.letter.name)))
    }
}
