//! The times of housekeeping, and the bounds of one run.

use std::time::{Duration, Instant};

use crate::settings::Settings;

/// How many old events one clean-up removes.
pub(crate) const CLEAN_UP_BATCH: usize = 1_000;
/// The longest time between two clean-ups.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(10);

/// The times of the next housekeeping.
pub(crate) struct Schedule {
    every: Duration,
    clean_up_every: Duration,
    pub(crate) next: Instant,
    next_clean_up: Instant,
}

impl Schedule {
    pub(crate) fn new(settings: &Settings) -> Self {
        let now = Instant::now();
        Self {
            every: settings.lease_time / 4,
            clean_up_every: CLEAN_UP_EVERY.min(settings.idle_expiry),
            next: now,
            next_clean_up: now,
        }
    }

    /// Whether it is time; if so, the next time is set.
    pub(crate) fn begin(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.next;
        if is_due {
            self.next = now + self.every;
        }
        is_due
    }

    /// The next housekeeping does not run before this time has passed.
    #[cfg(feature = "postgres")]
    pub(crate) fn postpone(&mut self, time: Duration) {
        self.next = self.next.max(Instant::now() + time);
    }

    pub(crate) fn is_clean_up_due(&self) -> bool {
        Instant::now() >= self.next_clean_up
    }

    /// After a clean-up. With more to remove, the next one comes at once, with claims in between.
    pub(crate) fn cleaned_up(&mut self, has_more: bool) {
        let now = Instant::now();
        if has_more {
            self.next = now;
        } else {
            self.next_clean_up = now + self.clean_up_every;
        }
    }
}
