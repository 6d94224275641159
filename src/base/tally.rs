//! A counter that one thread writes and every thread reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that one thread writes and all read.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    /// Counts one. Only the thread that the shard belongs to may do so: it costs no read-modify-write.
    pub(crate) fn add_one(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Counts several, under the same condition.
    pub(crate) fn add(&self, several: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(several), Ordering::Release);
    }

    /// Takes one back, under the same condition.
    pub(crate) fn subtract_one(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Release);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
