//! The ring: the latest events in publish order. This file has positions and their slots. Which records are kept after
//! they leave the ring is decided in `store`, and how long the ring may be in `length`.
//!
//! Positions count publishes. A publishing thread takes a *run* of them at once, and the slots of a run share a lock,
//! so a publish seldom touches memory that another thread writes (`stock`). In a small store a run is a single
//! position.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::SharedRecord;

/// An index entry that was never written (0) maps to this position. Positions start more than one ring length above it,
/// so such an entry maps to no position in the ring.
const FIRST: u64 = 1 << 32;

/// How many runs the ring has beyond its capacity: this many publishers may have taken new positions and not yet
/// evicted old events for them.
const SLACK: u64 = 32;

/// A slot; vacant without a record. `filled` shows which position it was used or passed for last.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The last position of this slot that was filled or evicted, plus 1; 0 = none yet.
    pub(super) filled: u64,
    pub(super) record: Option<SharedRecord>,
}

/// Slots in blocks, one lock for each, and the two ends.
#[derive(Debug)]
pub(super) struct Ring {
    /// The slot of position `p` is in block `p / run % blocks.len()`.
    blocks: Box<[Mutex<Box<[Slot]>>]>,
    run: u64,
    capacity: u64,
    first: u64,
    ends: CachePadded<Ends>,
}

#[derive(Debug)]
struct Ends {
    /// The next position to take.
    head: AtomicU64,
    /// Every position below this one has left the ring. A multiple of the length of a run.
    tail: AtomicU64,
    /// Positions that were taken and given up.
    unused: AtomicU64,
}

impl Ring {
    /// A ring for `capacity` events, in runs of `run`.
    pub(super) fn new(capacity: u64, run: u64) -> Self {
        let blocks = capacity.div_ceil(run) + SLACK;
        let first = FIRST + (blocks + 1) * run;
        let slots = || (0..run).map(|_| Slot::default()).collect();
        Self {
            blocks: (0..blocks).map(|_| Mutex::new(slots())).collect(),
            run,
            capacity,
            first,
            ends: CachePadded::new(Ends {
                head: AtomicU64::new(first),
                tail: AtomicU64::new(first),
                unused: AtomicU64::new(0),
            }),
        }
    }

    /// How many events the ring may hold before the oldest are evicted.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many slots the ring has: its capacity, rounded up to runs, and the slack.
    pub(super) fn len(&self) -> u64 {
        self.blocks.len() as u64 * self.run
    }

    pub(super) fn run(&self) -> u64 {
        self.run
    }

    pub(super) fn head(&self) -> u64 {
        self.ends.head.load(Ordering::Acquire)
    }

    pub(super) fn tail(&self) -> u64 {
        self.ends.tail.load(Ordering::Acquire)
    }

    /// Takes the next positions.
    pub(super) fn take(&self, positions: u64) -> Range<u64> {
        let start = self.ends.head.fetch_add(positions, Ordering::AcqRel);
        start..start + positions
    }

    /// Counts positions that were taken and will not be used.
    pub(super) fn give_up(&self, positions: u64) {
        self.ends.unused.fetch_add(positions, Ordering::Relaxed);
    }

    /// How many positions were used so far, or a few more. Costs two loads.
    pub(super) fn used_at_most(&self) -> u64 {
        let unused = self.ends.unused.load(Ordering::Relaxed);
        (self.ends.head.load(Ordering::Relaxed) - self.first).saturating_sub(unused)
    }

    /// The positions that are in the ring at this moment.
    pub(super) fn positions(&self) -> Range<u64> {
        let tail = self.tail();
        let head = self.head();
        tail.max(head.saturating_sub(self.len()))..head
    }

    /// The slot of a position, locked.
    pub(super) fn slot(&self, position: u64) -> MappedMutexGuard<'_, Slot> {
        MutexGuard::map(self.block(position).lock(), |slots| &mut slots[(position % self.run) as usize])
    }

    /// Whether a position was taken and has not left the ring. (An index entry that was not written for very long may
    /// map to a position that was not taken yet.)
    pub(super) fn contains(&self, position: u64) -> bool {
        position >= self.tail() && position < self.head()
    }

    /// Evicts the run at `tail`, unless another thread did; `leave` empties its slots.
    pub(super) fn pass_tail(&self, tail: u64, mut leave: impl FnMut(&mut Slot)) {
        let next = tail + self.run;
        let mut slots = self.block(tail).lock();
        // The tail advances under the lock of the run, after its slots are emptied: a position below the tail has left.
        if self.ends.tail.load(Ordering::Relaxed) != tail {
            return;
        }
        for (position, slot) in (tail..next).zip(slots.iter_mut()) {
            if slot.filled <= position + 1 {
                leave(slot);
                // A delayed publisher of this position finds it evicted, and starts over.
                slot.filled = position + 1;
            }
        }
        self.ends.tail.store(next, Ordering::Release);
    }

    /// Moves both ends, as if so many positions had been used.
    #[cfg(test)]
    pub(super) fn skip(&self, positions: u64) {
        self.ends.head.fetch_add(positions, Ordering::SeqCst);
        self.ends.tail.fetch_add(positions, Ordering::SeqCst);
    }

    fn block(&self, position: u64) -> &Mutex<Box<[Slot]>> {
        &self.blocks[(position / self.run % self.blocks.len() as u64) as usize]
    }
}
