//! Counters of one subscription. All only grow.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::{DeliveryTotals, Verdict};

/// What happened so far. All only grow.
#[derive(Debug, Default)]
pub(crate) struct SubscriptionCounters {
    /// Calls begun.
    pub(crate) started: AtomicU64,
    /// Calls ended, with everything that follows from them.
    pub(crate) finished: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) verdicts: VerdictCounts,
}

/// Deliveries that have ended, by verdict.
#[derive(Debug, Default)]
pub(crate) struct VerdictCounts {
    done: AtomicU64,
    skipped: AtomicU64,
    dead: AtomicU64,
    dropped: AtomicU64,
    cancelled: AtomicU64,
}

impl VerdictCounts {
    pub(crate) fn count(&self, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Done => &self.done,
            Verdict::Skipped => &self.skipped,
            Verdict::Dead => &self.dead,
            Verdict::Dropped => &self.dropped,
            Verdict::Cancelled => &self.cancelled,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn add_to(&self, totals: &mut DeliveryTotals) {
        totals.done += self.done.load(Ordering::SeqCst);
        totals.skipped += self.skipped.load(Ordering::SeqCst);
        totals.dead += self.dead.load(Ordering::SeqCst);
        totals.dropped += self.dropped.load(Ordering::SeqCst);
        totals.cancelled += self.cancelled.load(Ordering::SeqCst);
    }
}
