//! A flag for events whose generated id exists in no other copy. Bridges need not look such an id up at the back end.

use std::sync::atomic::{AtomicBool, Ordering};

/// True from the generation of an event's id until the event is cloned or written as JSON.
#[derive(Debug, Default)]
pub(super) struct SoleCopy(AtomicBool);

impl SoleCopy {
    pub(super) fn new(sole: bool) -> Self {
        Self(AtomicBool::new(sole))
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Clears the flag: another copy exists. Writes only if it is set, because other threads read the event too.
    pub(super) fn end(&self) {
        if self.get() {
            self.0.store(false, Ordering::Relaxed);
        }
    }
}

/// Clears the flag of both: neither the original nor the clone is the only copy.
impl Clone for SoleCopy {
    fn clone(&self) -> Self {
        self.end();
        Self::default()
    }
}

/// The flag is not part of the event's content.
impl PartialEq for SoleCopy {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}
