//! Whether anybody can have seen the id of an event. What is made of that is told where events leave this process.

use std::sync::atomic::{AtomicBool, Ordering};

/// True from the moment an event gets an id of its own until somebody may have taken that id elsewhere: read it, or copied the event.
#[derive(Debug, Default)]
pub(super) struct Unseen(AtomicBool);

impl Unseen {
    pub(super) fn new(unseen: bool) -> Self {
        Self(AtomicBool::new(unseen))
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Somebody sees it. Others read the event too: it is only written to the first time.
    pub(super) fn end(&self) {
        if self.get() {
            self.0.store(false, Ordering::Relaxed);
        }
    }
}

/// Of two copies neither is the only one.
impl Clone for Unseen {
    fn clone(&self) -> Self {
        self.end();
        Self::default()
    }
}

/// It is no part of what an event says.
impl PartialEq for Unseen {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}
