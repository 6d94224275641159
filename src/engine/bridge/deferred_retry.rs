//! Retries that wait at the back end: which do, and how they leave this process. The others are in the `DelayedQueue`.

use std::sync::Arc;
use std::time::Duration;

use crate::bridge::Bridge;
use crate::engine::Engine;
use crate::provider::LeaseOutcome;
use crate::queue::QueuedDelivery;

/// Whether a retry is deferred to the back end: the back end offers that, the delay is longer than a lease, and the
/// delivery has no lane. Only a lane of this process holds later deliveries of its key back.
fn is_deferred(is_offered: bool, lease_time: Option<Duration>, delay: Duration, has_lane: bool) -> bool {
    is_offered && !has_lane && lease_time.is_some_and(|lease_time| delay > lease_time)
}

impl Engine {
    /// Defers a failed leased delivery to the back end until its retry is due. The delivery gets no verdict and leaves
    /// this process: neither a stop nor the removal of its subscription waits for it.
    ///
    /// # Errors
    /// The delivery, if its retry has to wait in this process.
    pub(crate) fn defer(
        self: &Arc<Self>,
        mut delivery: QueuedDelivery,
        delay: Duration,
        now: u64,
    ) -> Result<(), QueuedDelivery> {
        let defers = |bridge: &&Bridge| {
            let is_offered = bridge.capabilities.deferred_retries;
            is_deferred(is_offered, bridge.inbound.lease_time(), delay, delivery.lane.is_some())
        };
        let Some(bridge) = self.bridge.as_ref().filter(defers) else { return Err(delivery) };
        let Some(lease) = delivery.lease().cloned() else { return Err(delivery) };
        let errors = delivery.history.take().map(|history| history.errors).unwrap_or_default();
        let QueuedDelivery { record, attempts, .. } = delivery;
        let progress = record.settle_one(false, None, self.clock.wall(now));
        bridge.settle_lease(&lease, LeaseOutcome::Deferred { delay, attempts, errors: errors.into() });
        self.end_leased_call(&lease);
        bridge.note_end(&record, progress);
        // The event does not end in this process, so its duration is not recorded.
        self.settle_event(&record, progress, None);
        Ok(())
    }
}
