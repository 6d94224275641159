//! Pausing: no call of the subscription begins on this instance until it is resumed. Its leased deliveries are
//! released, so that other members can run them; events published on this instance wait in its queue.

use std::sync::Arc;

use super::Engine;
use crate::outcome::{SubscriptionId, Verdict};
use crate::queue::QueuedDelivery;
use crate::subscription::Subscription;

impl Engine {
    /// Pauses a subscription. Returns how many calls still run; `None` if the subscription is unknown.
    pub(crate) fn pause(self: &Arc<Self>, id: SubscriptionId) -> Option<u64> {
        let subscription = self.subscriptions.find(id)?;
        if subscription.pause() {
            if let Some(bridge) = &self.bridge {
                // Before leases are released, so that the ingest does not receive these deliveries again.
                bridge.inbound.wake();
            }
            self.release_leases(&subscription, true);
        }
        Some(subscription.running())
    }

    /// Resumes a subscription. `None` if it is unknown.
    pub(crate) fn resume(self: &Arc<Self>, id: SubscriptionId) -> Option<()> {
        let subscription = self.subscriptions.find(id)?;
        if subscription.resume() {
            self.after_enqueue(&subscription);
            if let Some(bridge) = &self.bridge {
                bridge.inbound.wake();
            }
        }
        Some(())
    }

    /// Releases the leases of a subscription under which no call runs; those with earlier attempts only if `retries`.
    pub(crate) fn release_leases(self: &Arc<Self>, subscription: &Arc<Subscription>, retries: bool) {
        if self.bridge.is_none() {
            return;
        }
        let now = self.clock.now();
        for mut delivery in subscription.inbox.take_parked_leases() {
            subscription.inbox.leave(&mut delivery);
            self.record_verdict(subscription, delivery, Verdict::Cancelled, None, now);
        }
        let is_of =
            |of: &Subscription, delivery: &QueuedDelivery| of.id == subscription.id && delivery.lease().is_some();
        let delayed = self.timer.delayed.take_if(|it| retries && is_of(&it.subscription, &it.delivery));
        let delayed = delayed.into_iter().map(|waiting| waiting.delivery).chain(self.suspects_of(subscription));
        for delivery in subscription.inbox.take_due_leases(retries).into_iter().chain(delayed) {
            self.cancel(subscription, delivery);
        }
    }
}
