//! The crash guard: what came back from a lost lease may have killed its holder, so it runs alone, one in the whole process at a
//! time, and the back end is told before the call. If the process dies of it, only that one collects a crash; after
//! [`MAX_CRASHES`] of them it becomes a dead letter. What waits for its turn keeps its place, its lane and its lease.

use std::sync::Arc;

use crate::engine::Engine;
use crate::outcome::DeadReason;
use crate::queue::{HeldLease, QueuedDelivery};
use crate::subscription::{State, Subscription};

/// So many crashes make a dead letter.
const MAX_CRASHES: u32 = 3;

/// A call under a lease, from before it begins until it is settled.
pub(crate) struct LeasedCall {
    engine: Arc<Engine>,
    lease: Arc<HeldLease>,
    alone: bool,
}

impl Drop for LeasedCall {
    fn drop(&mut self) {
        self.lease.end_call();
        if !self.alone {
            return;
        }
        self.lease.clear();
        let Some(bridge) = &self.engine.bridge else { return };
        if !self.lease.is_settled() {
            // It will be retried: that is no crash.
            bridge.unmark(&self.lease);
        }
        bridge.suspects.end();
        self.engine.call_next_suspect();
    }
}

impl Engine {
    /// What has to be seen to before a call under a lease. Returns the delivery and its call, or nothing if it does not run
    /// now: its lease is lost, it is a dead letter, or it waits for its turn.
    pub(crate) fn before_leased_call(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        mut delivery: QueuedDelivery,
        lease: Arc<HeldLease>,
        now: u64,
    ) -> Option<(QueuedDelivery, LeasedCall)> {
        // A lease comes from a bridge.
        let bridge = self.bridge.as_ref()?;
        if lease.is_lost(now) {
            bridge.inbound.lose_behind(&lease);
            self.cancel(subscription, delivery);
            return None;
        }
        if lease.crashes >= MAX_CRASHES {
            subscription.inbox.leave(&mut delivery);
            let error = format!("its process ended {} times during the call", lease.crashes);
            self.make_dead_letter(subscription, delivery, DeadReason::CrashLoop, Some(&error), now);
            return None;
        }
        let alone = lease.is_suspect();
        if alone {
            let Some(entered) = bridge.suspects.begin(subscription, delivery) else {
                match subscription.state() {
                    State::Open => {}
                    // Its removal may have looked at those that wait before this one did.
                    State::Closed => self.cancel_all(subscription),
                    State::Paused => self.release_leases(subscription, true),
                }
                return None;
            };
            delivery = entered;
            if !bridge.mark(&lease) {
                bridge.suspects.end();
                bridge.inbound.lose_behind(&lease);
                self.cancel(subscription, delivery);
                return None;
            }
        }
        lease.begin_call(now);
        Some((delivery, LeasedCall { engine: Arc::clone(self), lease, alone }))
    }

    /// A suspect has ended its turn, or has ended without one, which may have been the next: the one behind it is called, unless one
    /// runs.
    pub(crate) fn call_next_suspect(self: &Arc<Self>) {
        let next = self.bridge.as_ref().and_then(|bridge| bridge.suspects.next());
        if let Some((subscription, delivery)) = next {
            subscription.inbox.push_due(delivery);
            self.after_enqueue(&subscription);
        }
    }
}
