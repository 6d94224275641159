//! Pausing: a subscription of this instance that takes no turn until it is resumed. What a back end has handed over for it goes back, so
//! that other members can run it; what was published here waits in its queue.

use std::sync::Arc;

use crate::engine::Engine;
use crate::inbox::Queued;
use crate::subscription::Subscription;
use crate::verdict::{SubscriptionId, Verdict};

impl Engine {
    /// From now on no call of the subscription begins. Returns how many still run, or nothing if it is unknown.
    pub(crate) fn pause(self: &Arc<Self>, id: SubscriptionId) -> Option<u64> {
        let subscription = self.subscriptions.lock().by_id.get(&id.0).cloned()?;
        if subscription.pause() {
            if let Some(bridge) = &self.bridge {
                // Before anything is given back, or it would come in again.
                bridge.ring();
            }
            self.give_back(&subscription, true);
        }
        Some(subscription.running())
    }

    /// Calls begin again. Nothing if the subscription is unknown.
    pub(crate) fn resume(self: &Arc<Self>, id: SubscriptionId) -> Option<()> {
        let subscription = self.subscriptions.lock().by_id.get(&id.0).cloned()?;
        if subscription.resume() {
            self.after_push(&subscription);
            if let Some(bridge) = &self.bridge {
                bridge.ring();
            }
        }
        Some(())
    }

    /// Gives the leases of a subscription back that no call runs under; those that were tried already only if `tried`.
    pub(crate) fn give_back(self: &Arc<Self>, subscription: &Arc<Subscription>, tried: bool) {
        if self.bridge.is_none() {
            return;
        }
        let now = self.clock.now();
        for mut delivery in subscription.inbox.take_parked_leases() {
            subscription.inbox.leave(&mut delivery);
            self.conclude(subscription, delivery, Verdict::Cancelled, None, now);
        }
        let is_of = |of: &Subscription, delivery: &Queued| of.id == subscription.id && delivery.lease().is_some();
        let delayed = self.delays.take_if(|it| tried && is_of(&it.subscription, &it.delivery));
        let delayed = delayed.into_iter().map(|waiting| waiting.delivery).chain(self.suspects.take_of(subscription));
        for delivery in subscription.inbox.take_due_leases(tried).into_iter().chain(delayed) {
            self.cancel(subscription, delivery);
        }
    }
}
