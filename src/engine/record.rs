//! The record of an event in the store: stored, opened again, closed; and the counts that follow.

use super::Engine;
use crate::event::Event;
use crate::store::{Progress, Record, SharedRecord, StatusSource};

impl Engine {
    /// Events that are accepted and not settled, given a sum of `settled` that was read before: never too few.
    pub(crate) fn in_flight(&self, settled: u64) -> u64 {
        let counters = &self.telemetry.counters;
        (counters.sum(|shard| &shard.accepted) + counters.reopened()).saturating_sub(settled)
    }

    /// Stores an event: from here on it is accepted.
    ///
    /// # Errors
    /// The event, with the record that has its id already.
    pub(super) fn store_new(
        &self,
        event: Event,
        deliveries: u32,
        source: StatusSource<'_>,
    ) -> Result<SharedRecord, (Event, SharedRecord)> {
        let counters = &self.telemetry.counters;
        let record = self.store.put(event, deliveries, source, || self.in_flight(counters.settled()))?;
        let here = counters.here();
        here.accepted.add_one();
        if self.config.metrics {
            let series = &self.telemetry.series;
            series.published(here.series(), &record.event);
            // With a back end the deliveries may come in later, here or at another instance.
            if deliveries == 0 && self.bridge.is_none() {
                series.settled(here.series(), &record.event, false, None, 0);
            }
        }
        Ok(record)
    }

    /// Evicts what is beyond the bound of the store.
    pub(crate) fn fit_store(&self) {
        self.store.fit(|| self.in_flight(self.telemetry.counters.settled()));
    }

    /// Makes a delivery of a known event open; `open` returns the progress before that.
    pub(super) fn reopen(&self, record: &SharedRecord, open: impl FnOnce(&Record) -> Progress) {
        let before = open(record);
        if !before.is_open() {
            let here = self.telemetry.counters.here();
            let reopened = if before.is_failed() { &here.failed_reopened } else { &here.completed_reopened };
            reopened.add_one();
        }
        self.store.reopened(record);
    }

    /// Completes or fails an event if none of its deliveries is open in this process. `timed` also records how long it took, at a wall
    /// time.
    pub(super) fn settle_event(&self, record: &SharedRecord, progress: Progress, timed: Option<u64>) {
        if progress.is_open() {
            return;
        }
        let here = self.telemetry.counters.here();
        if let Some(wall) = timed.filter(|_| self.config.metrics) {
            let (took, whole) = record.took(wall);
            self.telemetry.series.settled(here.series(), &record.event, progress.is_failed(), took, whole);
        }
        self.store.closed(record, progress);
        let settled = if progress.is_failed() { &here.failed } else { &here.completed };
        settled.add_one();
        if self.store.is_small() {
            self.fit_store();
        }
        self.lifecycle.event_settled();
    }
}
