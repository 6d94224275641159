//! Counters of one subscription.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::{DeliveryTotals, Verdict};

/// Totals since the subscription was made.
#[derive(Debug, Default)]
pub(crate) struct SubscriptionCounters {
    /// Calls begun.
    pub(crate) started: AtomicU64,
    /// Calls ended, after their outcome was settled.
    pub(crate) finished: AtomicU64,
    pub(crate) retries: AtomicU64,
    /// Settled deliveries, by verdict.
    verdicts: [AtomicU64; Verdict::COUNT],
}

impl SubscriptionCounters {
    pub(crate) fn count(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn deliveries(&self) -> DeliveryTotals {
        DeliveryTotals::of(|verdict| self.verdicts[verdict as usize].load(Ordering::SeqCst))
    }
}
