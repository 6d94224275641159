//! How many events are in flight, which bounds admission and the store.

use super::Engine;

impl Engine {
    /// Events that are accepted and not settled. Never too few, because the caller has read the sum `settled` before.
    pub(crate) fn in_flight(&self, settled: u64) -> u64 {
        let counters = &self.telemetry.counters;
        (counters.sum(|shard| &shard.accepted) + counters.reopened()).saturating_sub(settled)
    }

    /// Evicts events beyond the bound of the store.
    pub(crate) fn fit_store(&self) {
        self.store.fit(|| self.in_flight(self.telemetry.counters.settled()));
    }
}
