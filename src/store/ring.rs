//! The ring: the young events in publish order. What lives here: positions, and the slots they stand for. What an event is
//! worth when it leaves, and how long the ring may be, is decided elsewhere (`store`, `length`).
//!
//! Positions count publishes. A thread that publishes takes a *run* of them at once, and slots share a lock by the run, so
//! that a publish seldom touches what another thread writes (`stock`). In a small store a run is a single position.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::SharedRecord;

/// Positions start more than the length of the ring beyond this, so that an index entry that was never written, 0, leads to
/// none that is in the ring.
const FIRST: u64 = 1 << 32;

/// How many runs are between the oldest event and the place where it would be overwritten: so many publishers may have taken new
/// positions and not yet made room for them.
const SLACK: u64 = 32;

/// Without a record it is vacant; `filled` tells whether its position was used before that.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The position that last lived here, plus 1; 0 = none yet.
    pub(super) filled: u64,
    pub(super) record: Option<SharedRecord>,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Ring {
    /// Position `p` lives in block `p / run % blocks.len()`.
    blocks: Box<[Mutex<Box<[Slot]>>]>,
    run: u64,
    /// How many events it is meant for.
    capacity: u64,
    first: u64,
    ends: CachePadded<Ends>,
}

#[derive(Debug)]
struct Ends {
    /// The next position that nobody has taken.
    head: AtomicU64,
    /// Every position below it has left the ring. A multiple of the length of a run.
    tail: AtomicU64,
    /// Positions that were taken and given up.
    unused: AtomicU64,
}

impl Ring {
    /// A ring for so many events, in runs of `run`.
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

    /// How many events there may be before the oldest have to leave.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many positions it has: more than its capacity.
    pub(super) fn len(&self) -> u64 {
        self.blocks.len() as u64 * self.run
    }

    /// The length of a run.
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

    /// Positions that were taken will not be used.
    pub(super) fn give_up(&self, positions: u64) {
        self.ends.unused.fetch_add(positions, Ordering::Relaxed);
    }

    /// How many positions were used so far, or a few more. Two loads.
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

    /// Whether a position was taken and has not left. (An entry of the index that was not written for very long may lead to
    /// one that nobody has taken yet.)
    pub(super) fn contains(&self, position: u64) -> bool {
        position >= self.tail() && position < self.head()
    }

    /// Takes the oldest run out, unless another thread did; `leave` empties its slots.
    pub(super) fn pass_tail(&self, tail: u64, mut leave: impl FnMut(&mut Slot)) {
        let next = tail + self.run;
        let mut slots = self.block(tail).lock();
        // The tail passes positions under the lock of their slots, and last: so what is behind the tail has left.
        if self.ends.tail.load(Ordering::Relaxed) != tail {
            return;
        }
        for (position, slot) in (tail..next).zip(slots.iter_mut()) {
            if slot.filled <= position + 1 {
                leave(slot);
                // A publisher that is held up will find its position taken, and start over.
                slot.filled = position + 1;
            }
        }
        self.ends.tail.store(next, Ordering::Release);
    }

    /// As if so many positions had been used.
    #[cfg(test)]
    pub(super) fn skip(&self, positions: u64) {
        self.ends.head.fetch_add(positions, Ordering::SeqCst);
        self.ends.tail.fetch_add(positions, Ordering::SeqCst);
    }

    fn block(&self, position: u64) -> &Mutex<Box<[Slot]>> {
        &self.blocks[(position / self.run % self.blocks.len() as u64) as usize]
    }
}
