//! The bell between those who store events and the one who waits for them, in one process.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Rings when there may be something to claim, or when somebody wants the ingest to look up.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    stored: bool,
    woken: bool,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Something was stored or given back.
    Stored,
    /// The engine wants the call to return.
    Woken,
    Nothing,
}

impl Bell {
    pub(crate) fn stored(&self) {
        self.rung.lock().stored = true;
        self.changed.notify_all();
    }

    pub(crate) fn wake(&self) {
        self.rung.lock().woken = true;
        self.changed.notify_all();
    }

    /// Waits until it rings, at most until `deadline`. What was heard is forgotten.
    pub(crate) fn wait(&self, deadline: Instant) -> Heard {
        let mut rung = self.rung.lock();
        while !rung.stored && !rung.woken {
            if self.changed.wait_until(&mut rung, deadline).timed_out() {
                break;
            }
        }
        let Rung { stored, woken } = std::mem::take(&mut *rung);
        match (woken, stored) {
            (true, stored) => {
                rung.stored = stored;
                Heard::Woken
            }
            (false, true) => Heard::Stored,
            (false, false) => Heard::Nothing,
        }
    }
}
