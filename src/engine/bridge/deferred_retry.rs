//! Retries that wait at the back end: which ones do, and how they leave this process. Those that wait here are in `delay`.

use std::time::Duration;

use crate::bridge::Bridge;
use crate::engine::Engine;
use crate::provider::LeaseOutcome;
use crate::queue::QueuedDelivery;

/// Whether a retry waits at the back end and not here: that is able to keep it, it would keep a lease alive for longer than one lasts,
/// and nothing is behind it. What is behind it has to wait as well, which only a lane of this process can see to.
fn waits_there(is_able: bool, lease_time: Option<Duration>, delay: Duration, has_lane: bool) -> bool {
    is_able && !has_lane && lease_time.is_some_and(|lease_time| delay > lease_time)
}

impl Engine {
    /// Hands a leased delivery that has failed over to the back end until its retry is due, if that waits there; else returns it. It has
    /// no verdict, and nothing of it is left in this process: neither a stop nor the end of its subscription waits for it.
    pub(crate) fn defer(&self, mut delivery: QueuedDelivery, delay: Duration, now: u64) -> Result<(), QueuedDelivery> {
        let waits_there = |bridge: &&Bridge| {
            let is_able = bridge.capabilities.deferred_retries;
            waits_there(is_able, bridge.inbound.lease_time(), delay, delivery.lane.is_some())
        };
        let Some(bridge) = self.bridge.as_ref().filter(waits_there) else { return Err(delivery) };
        let Some(held) = delivery.lease().cloned() else { return Err(delivery) };
        let errors = delivery.history.take().map(|history| history.errors).unwrap_or_default();
        let QueuedDelivery { record, attempts, .. } = delivery;
        let progress = record.settle_one(false, None, self.clock.wall(now));
        bridge.settle_lease(&held, LeaseOutcome::Deferred { delay, attempts, errors: errors.into() });
        bridge.note_end(&record, progress);
        // The event has no end here, so it is not timed.
        self.settle_event(&record, progress, None);
        Ok(())
    }
}
