//! Wakes the thread that waits for deliveries, within one process.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Wakes one waiting thread: when there may be something to claim, or when the engine wants its call to return.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    stored: bool,
    woken: bool,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notified {
    /// An event was stored, or a delivery was given back.
    Stored,
    /// The engine wants the call to return.
    Woken,
    /// The deadline has passed.
    TimedOut,
}

impl Notify {
    pub(crate) fn stored(&self) {
        self.pending.lock().stored = true;
        self.changed.notify_all();
    }

    pub(crate) fn wake(&self) {
        self.pending.lock().woken = true;
        self.changed.notify_all();
    }

    /// Waits for a notification, at most until `deadline`, and takes it. `Woken` leaves a pending `Stored` for the next wait.
    pub(crate) fn wait(&self, deadline: Instant) -> Notified {
        let mut pending = self.pending.lock();
        while !pending.stored && !pending.woken {
            if self.changed.wait_until(&mut pending, deadline).timed_out() {
                break;
            }
        }
        if std::mem::take(&mut pending.woken) {
            Notified::Woken
        } else if std::mem::take(&mut pending.stored) {
            Notified::Stored
        } else {
            Notified::TimedOut
        }
    }
}
