//! A counter with one writing thread and any number of readers.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only its owning thread writes. Counting costs a load and a store, no read-modify-write.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    /// Adds one. Only the owning thread may call this: concurrent additions would be lost.
    pub(crate) fn add_one(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Adds `several`, under the same condition.
    pub(crate) fn add(&self, several: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(several), Ordering::Release);
    }

    /// Subtracts one, under the same condition.
    pub(crate) fn subtract_one(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Release);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
