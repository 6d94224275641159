//! How long the ring may be: as `max_events` and what is open allow. What leaves it, and where to, is told in the parent.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::{LARGE, SharedRecord, Store};

/// In a large store one publish in so many measures what is open; in a small one each does, and each settlement.
const MEASURE_EVERY: u64 = 64;
/// How far the measure may exceed what is open: an eighth of `max_events`, at most so many.
const MAX_BAND: u64 = 4_096;

impl Store {
    /// Whether it is measured each time, so that nothing else has to look after its length.
    pub(crate) fn is_small(&self) -> bool {
        self.max_events < LARGE as u64
    }

    /// Whether it is time to measure, for a thread that has just taken these positions.
    pub(super) fn wants_measure(&self, taken: &Range<u64>) -> bool {
        self.is_small() || taken.start / MEASURE_EVERY != taken.end / MEASURE_EVERY
    }

    /// Takes note of how many events are open.
    pub(super) fn measure(&self, open: u64) {
        let before = self.open.load(Ordering::Relaxed);
        let open = if self.is_small() { open } else { steadied(before, open, self.max_events) };
        if open != before {
            self.open.store(open, Ordering::Relaxed);
        }
    }

    /// Lets go of what is beyond the bound. How many events are open is asked after the look at the head: what is published
    /// meanwhile counts as open, and evicts nothing too early.
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

    /// Shortens the ring for a publisher that has taken positions. `spare` gets the records that left it.
    pub(super) fn make_room(&self, taken: &Range<u64>, deliveries: u32, mut spare: impl FnMut(SharedRecord)) {
        // What is terminal from the start takes the place of another one; what is open is not measured yet.
        let head = taken.end - u64::from(deliveries > 0);
        // One run for its own; another one if the ring has to become shorter.
        for _ in 0..2 {
            let tail = self.too_long(head, self.open.load(Ordering::Relaxed));
            // Its own positions stay, whatever was measured: it would start over for as long as nobody measures again.
            let Some(tail) = tail.filter(|tail| tail + self.ring.run() <= taken.start) else { break };
            self.evict(tail, &mut spare);
        }
    }

    /// The oldest position, if the ring up to `head` is longer than it may be while so many events are open.
    fn too_long(&self, head: u64, open: u64) -> Option<u64> {
        let tail = self.ring.tail();
        let allowed = (self.max_events + open).saturating_sub(self.aged.len());
        (head.saturating_sub(tail) > allowed.min(self.ring.capacity())).then_some(tail)
    }

    /// Takes the oldest run out of the ring.
    fn evict(&self, tail: u64, mut spare: impl FnMut(SharedRecord)) {
        self.ring.pass_tail(tail, |slot| {
            if let Some(record) = self.leave(slot) {
                spare(record);
            }
        });
    }
}

/// An upper bound of what is open that seldom changes. Each change of the ring's length costs allocations: records that
/// leave it are spare only if as many come.
fn steadied(before: u64, open: u64, max_events: u64) -> u64 {
    let band = (max_events / 8).min(MAX_BAND);
    if (open..=open + band).contains(&before) { before } else { open + band / 2 }
}
