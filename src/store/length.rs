//! How long the ring may be: as `max_events` and what is open allow. What leaves it, and where to, is told in the parent.

use std::sync::atomic::Ordering;

use super::{SharedRecord, Store};

/// One publish in so many measures what is open; in a store of fewer events than the square of it each does, and each
/// settlement.
const MEASURE_EVERY: u64 = 64;
/// How far the measure may exceed what is open: an eighth of `max_events`, at most so many.
const MAX_BAND: u64 = 4_096;

impl Store {
    /// Whether the next publish should tell the store how many events are open.
    pub(crate) fn wants_measure(&self) -> bool {
        self.is_small() || self.ends.head.load(Ordering::Relaxed).is_multiple_of(MEASURE_EVERY)
    }

    /// Whether it is measured each time, so that nothing else has to look after its length.
    pub(crate) fn is_small(&self) -> bool {
        self.max_events < MEASURE_EVERY * MEASURE_EVERY
    }

    /// Takes note of how many events are open.
    pub(crate) fn measure(&self, open: u64) {
        let open = if self.is_small() {
            open
        } else {
            steadied(self.ends.open.load(Ordering::Relaxed), open, self.max_events)
        };
        if open != self.ends.open.load(Ordering::Relaxed) {
            self.ends.open.store(open, Ordering::Relaxed);
        }
    }

    /// Lets go of what is beyond the bound. How many events are open is asked after the look at the head: what is published
    /// meanwhile counts as open, and evicts nothing too early.
    pub(crate) fn fit(&self, open: impl FnOnce() -> u64) {
        let head = self.ends.head.load(Ordering::SeqCst);
        let open = open();
        if !self.is_small() {
            self.ends.open.store(open, Ordering::Relaxed);
        }
        while let Some(tail) = self.too_long(head, open) {
            self.evict(tail);
        }
    }

    /// Shortens the ring for a publish. Returns a record to reuse, if there is one.
    pub(super) fn make_room(&self, head: u64) -> Option<SharedRecord> {
        let mut spare = None;
        // One place for itself; another one if the ring has to become shorter.
        for _ in 0..2 {
            let Some(tail) = self.too_long(head, self.ends.open.load(Ordering::Relaxed)) else { break };
            spare = self.evict(tail).or(spare);
        }
        spare
    }

    /// The oldest position, if the ring up to `head` is longer than it may be while so many events are open.
    fn too_long(&self, head: u64, open: u64) -> Option<u64> {
        let tail = self.ends.tail.load(Ordering::Acquire);
        let allowed = (self.max_events + open).saturating_sub(self.aged.len());
        (head.saturating_sub(tail) > allowed.min(self.slots.len() as u64)).then_some(tail)
    }

    /// Takes the oldest position out of the ring, unless another thread does. Returns its record.
    fn evict(&self, tail: u64) -> Option<SharedRecord> {
        if self.ends.tail.compare_exchange(tail, tail + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return None;
        }
        let mut slot = self.slot(tail).lock();
        if slot.filled <= tail {
            // Its publisher is held up: it will find the position taken, and start over.
            slot.filled = tail + 1;
        }
        if slot.filled == tail + 1 { self.leave(&mut slot) } else { None }
    }
}

/// An upper bound of what is open that seldom changes. Each change of the ring's length costs allocations: records that
/// leave it are spare only if as many come.
fn steadied(before: u64, open: u64, max_events: u64) -> u64 {
    let band = (max_events / 8).min(MAX_BAND);
    if (open..=open + band).contains(&before) { before } else { open + band / 2 }
}
