//! The route cache: the answers for the event types seen lately.
//!
//! What lives here: a fixed number of slots, so that no number of distinct types can make it grow, and the
//! generation that says whether an answer still holds. What does not: how an answer is found (`trie`).
//!
//! Two promises, and what keeps them:
//! - *No stale answer is taken for a fresh one.* The generation is raised after the trie has changed, and read
//!   before the trie is walked. An answer that may lack a change therefore carries a generation from before it.
//! - *No answer pins a target that was removed.* Who removes raises the generation and then sweeps the filled
//!   slots; who fills a slot marks it and then looks at the generation again. A sequentially consistent fence
//!   stands between the two steps on both sides, so at least one of them sees the other and empties the slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use arc_swap::{ArcSwapOption, Guard};

use super::Route;
use crate::event::EventType;

/// How many types are remembered: a power of two. 8 KiB of pointers; more types than this are rarely hot at once.
pub(super) const SLOTS: usize = 1024;

pub(super) struct RouteCache<T> {
    /// Raised by each change of the trie.
    generation: AtomicU64,
    /// Direct-mapped: the hash of a type names its slot.
    slots: Box<[ArcSwapOption<Entry<T>>]>,
    /// One bit per slot: filled since the last sweep. It lets a sweep skip what is empty.
    filled: [AtomicU64; SLOTS / 64],
}

struct Entry<T> {
    event_type: EventType,
    generation: u64,
    route: Arc<Route<T>>,
}

/// An entry that was found and holds. It stays alive as long as this does; nobody waits for it.
pub(super) struct Hit<T>(Guard<Option<Arc<Entry<T>>>>);

impl<T> Hit<T> {
    pub(super) fn route(&self) -> &Arc<Route<T>> {
        &self.0.as_ref().expect("a hit is made of a full slot only").route
    }
}

impl<T> RouteCache<T> {
    pub(super) fn new() -> Self {
        Self {
            generation: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| ArcSwapOption::empty()).collect(),
            filled: [const { AtomicU64::new(0) }; SLOTS / 64],
        }
    }

    /// The current generation. To be read before the trie is.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The answer for this type, if it is here and of this generation.
    pub(super) fn get(&self, event_type: &EventType, generation: u64) -> Option<Hit<T>> {
        let slot = self.slots[slot_of(event_type)].load();
        match slot.as_deref() {
            Some(entry) if entry.generation == generation && entry.event_type == *event_type => Some(Hit(slot)),
            _ => None,
        }
    }

    /// Remembers an answer that was found in the trie after `generation` was read.
    pub(super) fn put(&self, event_type: &EventType, generation: u64, route: &Arc<Route<T>>) {
        let index = slot_of(event_type);
        let entry = Entry { event_type: event_type.clone(), generation, route: Arc::clone(route) };
        self.slots[index].store(Some(Arc::new(entry)));
        self.filled[index / 64].fetch_or(1 << (index % 64), Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if self.generation.load(Ordering::Relaxed) != generation {
            // The trie changed meanwhile, and the sweep of that change may have passed this slot already.
            self.slots[index].store(None);
        }
    }

    /// Makes every answer stale. To be called after the trie has changed.
    pub(super) fn outdate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Empties every slot, so that stale answers hold nothing alive. Comes after [`RouteCache::outdate`].
    pub(super) fn sweep(&self) {
        fence(Ordering::SeqCst);
        for (word, filled) in self.filled.iter().enumerate() {
            if filled.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = filled.swap(0, Ordering::AcqRel);
            while bits != 0 {
                self.slots[word * 64 + bits.trailing_zeros() as usize].store(None);
                bits &= bits - 1;
            }
        }
    }

    /// How many slots hold an answer.
    #[cfg(test)]
    pub(super) fn filled(&self) -> usize {
        self.slots.iter().filter(|slot| slot.load().is_some()).count()
    }
}

fn slot_of(event_type: &EventType) -> usize {
    event_type.hash64() as usize % SLOTS
}
