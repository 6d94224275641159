//! Whether an event is the only copy of an id that was made here. The bridges use it: such an id needs no look-up at a back end.

use std::sync::atomic::{AtomicBool, Ordering};

/// True from the moment an event gets an id of its own until the event is copied, written as JSON or returned by a publish.
#[derive(Debug, Default)]
pub(super) struct SoleCopy(AtomicBool);

impl SoleCopy {
    pub(super) fn new(sole: bool) -> Self {
        Self(AtomicBool::new(sole))
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Another copy exists. Other threads read the event too, so the flag is written only once.
    pub(super) fn end(&self) {
        if self.get() {
            self.0.store(false, Ordering::Relaxed);
        }
    }
}

/// Neither the original nor the clone is the only copy.
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
