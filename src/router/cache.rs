//! The route cache: the routes of recently seen event types, in a fixed number of slots, and the generation that
//! invalidates them.
//!
//! Two invariants:
//! - *No stale route is returned.* A change raises the generation after it has changed the trie; a look-up reads the
//!   generation before it walks the trie. A route that may lack a change therefore carries an older generation.
//! - *No cached route keeps a removed target alive.* A removal raises the generation and then sweeps the filled slots;
//!   a look-up fills and marks a slot and then rereads the generation. Both sides have a sequentially consistent fence
//!   between their two steps, so at least one of them sees the other and empties the slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use arc_swap::{ArcSwapOption, Guard};

use super::Route;
use crate::event::EventType;

/// The number of slots, a power of two: 8 KiB of pointers. More types than this are rarely hot at once.
pub(super) const SLOTS: usize = 1024;

pub(super) struct RouteCache<T> {
    /// Each change of the trie raises it.
    generation: AtomicU64,
    /// Direct-mapped by the hash of the type.
    slots: Box<[ArcSwapOption<CacheEntry<T>>]>,
    /// One bit per slot: filled since the last sweep. A sweep skips the others.
    filled: [AtomicU64; SLOTS / 64],
}

struct CacheEntry<T> {
    event_type: EventType,
    generation: u64,
    route: Arc<Route<T>>,
}

/// A current entry. Keeps the entry alive, and blocks no other thread.
pub(super) struct Hit<T>(Guard<Option<Arc<CacheEntry<T>>>>);

impl<T> Hit<T> {
    pub(super) fn route(&self) -> &Arc<Route<T>> {
        &self.0.as_ref().expect("only a filled slot yields a hit").route
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

    /// The current generation. Read it before the trie.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The cached route of a type, if it is of this generation.
    pub(super) fn get(&self, event_type: &EventType, generation: u64) -> Option<Hit<T>> {
        let slot = self.slots[slot_of(event_type)].load();
        match slot.as_deref() {
            Some(entry) if entry.generation == generation && entry.event_type == *event_type => Some(Hit(slot)),
            _ => None,
        }
    }

    /// Caches a route that was computed after `generation` was read.
    pub(super) fn put(&self, event_type: &EventType, generation: u64, route: &Arc<Route<T>>) {
        let index = slot_of(event_type);
        let entry = CacheEntry { event_type: event_type.clone(), generation, route: Arc::clone(route) };
        self.slots[index].store(Some(Arc::new(entry)));
        self.filled[index / 64].fetch_or(1 << (index % 64), Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if self.generation.load(Ordering::Relaxed) != generation {
            // The trie has changed meanwhile, and the sweep of that change may have passed this slot already.
            self.slots[index].store(None);
        }
    }

    /// Makes every cached route stale. Call it after the trie has changed.
    pub(super) fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Empties every slot, so that stale routes keep no target alive. Call it after [`RouteCache::invalidate`].
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

    /// The number of filled slots.
    #[cfg(test)]
    pub(super) fn filled(&self) -> usize {
        self.slots.iter().filter(|slot| slot.load().is_some()).count()
    }
}

fn slot_of(event_type: &EventType) -> usize {
    event_type.hash64() as usize % SLOTS
}
