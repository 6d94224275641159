//! How long the ring may be, from `max_events` and the number of open events. Where evicted records go is in `store`.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::{LARGE, SharedRecord, Store};

/// A large store measures the open events once in this many positions, a small one at each publish and settled event.
const MEASURE_EVERY: u64 = 64;
/// The measure may exceed the number of open events by an eighth of `max_events`, and by at most this many.
const MAX_BAND: u64 = 4_096;

impl Store {
    /// Whether each publish and each settled event measures, so that the timer need not call [`fit`](Self::fit).
    pub(crate) fn is_small(&self) -> bool {
        self.max_events < LARGE as u64
    }

    /// Whether a thread that has just taken these positions has to measure.
    pub(super) fn wants_measure(&self, taken: &Range<u64>) -> bool {
        self.is_small() || taken.start / MEASURE_EVERY != taken.end / MEASURE_EVERY
    }

    /// Records how many events are open.
    pub(super) fn measure(&self, open: u64) {
        let before = self.open.load(Ordering::Relaxed);
        let open = if self.is_small() { open } else { damped(before, open, self.max_events) };
        if open != before {
            self.open.store(open, Ordering::Relaxed);
        }
    }

    /// Evicts events beyond the bound. `open` is called after `head` is read: an event published in between counts as
    /// open, so nothing is evicted too early.
    pub(crate) fn fit(&self, open: impl FnOnce() -> u64) {
        let head = self.ring.head();
        let open = open();
        if !self.is_small() {
            self.open.store(open, Ordering::Relaxed);
        }
        while let Some(tail) = self.too_long(head, open) {
            self.evict(tail, drop);
        }
    }

    /// Evicts the oldest runs for a publisher that has taken positions. `spare` gets the evicted records.
    pub(super) fn make_room(&self, taken: &Range<u64>, deliveries: u32, mut spare: impl FnMut(SharedRecord)) {
        // An event without deliveries is terminal at once and needs room. An open one is not in the measure yet.
        let head = taken.end - u64::from(deliveries > 0);
        // One run for the positions taken; a second one so that a ring that is too long gets shorter.
        for _ in 0..2 {
            let tail = self.too_long(head, self.open.load(Ordering::Relaxed));
            // The publisher's own positions stay, whatever was measured: it would start over until the next measure.
            let Some(tail) = tail.filter(|tail| tail + self.ring.run() <= taken.start) else { break };
            self.evict(tail, &mut spare);
        }
    }

    /// The tail, if the ring up to `head` is longer than `open` events and the aged generation allow.
    fn too_long(&self, head: u64, open: u64) -> Option<u64> {
        let tail = self.ring.tail();
        let allowed = (self.max_events + open).saturating_sub(self.aged.len());
        (head.saturating_sub(tail) > allowed.min(self.ring.capacity())).then_some(tail)
    }

    /// Evicts the run at `tail`.
    fn evict(&self, tail: u64, mut spare: impl FnMut(SharedRecord)) {
        self.ring.pass_tail(tail, |slot| {
            if let Some(record) = self.leave(slot) {
                spare(record);
            }
        });
    }
}

/// An upper bound of the open events that changes seldom. A ring whose length follows every fluctuation costs
/// allocations: evicted records are reused only if as many new ones follow.
fn damped(before: u64, open: u64, max_events: u64) -> u64 {
    let band = (max_events / 8).min(MAX_BAND);
    if (open..=open + band).contains(&before) { before } else { open + band / 2 }
}
