//! The bound of the backlog: housekeeping measures, and publishing refuses.

use std::sync::atomic::{AtomicBool, Ordering};

/// The setting `max_backlog`, and whether a subscription has reached it.
pub(crate) struct BacklogLimit {
    /// 0 is no limit.
    pub(crate) max: u64,
    is_reached: AtomicBool,
}

impl BacklogLimit {
    pub(crate) fn new(max: u64) -> Self {
        Self { max, is_reached: AtomicBool::new(false) }
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.is_reached.load(Ordering::SeqCst)
    }

    /// Takes the largest backlog of a subscription.
    pub(crate) fn measured(&self, backlog: u64) {
        self.is_reached.store(self.max > 0 && backlog >= self.max, Ordering::SeqCst);
    }
}
