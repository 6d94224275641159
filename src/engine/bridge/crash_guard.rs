//! The crash guard. A redelivery after a lost lease may have killed its previous holder; such a delivery is a
//! *suspect*, and its call is marked at the back end before it begins. If the process dies, each marked delivery counts
//! a crash. A suspect without a crash runs beside others; one with a crash runs alone among the suspects of this process,
//! so that the next crash is its own. [`MAX_CRASHES`] make a dead letter. A waiting suspect keeps its place, its lane and
//! its lease.

use std::sync::Arc;

use crate::engine::Engine;
use crate::outcome::DeadReason;
use crate::queue::{HeldLease, QueuedDelivery};
use crate::subscription::{State, Subscription};

/// After this many crashes a delivery becomes a dead letter.
const MAX_CRASHES: u32 = 3;

impl Engine {
    /// Checks the lease and the crash count before a call, and begins a suspect's turn. Returns the delivery; `None` if no
    /// call may begin: lost lease, dead letter, or not its turn. Blocks for a mark, at most 5 s.
    pub(crate) fn before_leased_call(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        mut delivery: QueuedDelivery,
        lease: &HeldLease,
        now: u64,
    ) -> Option<QueuedDelivery> {
        // Never `None`: a lease comes from a bridge.
        let bridge = self.bridge.as_ref()?;
        if lease.is_lost(now) {
            bridge.inbound.leases.lock().lose_behind(lease);
            self.cancel(subscription, delivery);
            return None;
        }
        if lease.crashes >= MAX_CRASHES {
            subscription.inbox.leave(&mut delivery);
            let error = format!("its process ended {} times during the call", lease.crashes);
            self.make_dead_letter(subscription, delivery, DeadReason::CrashLoop, Some(&error), now);
            return None;
        }
        if lease.is_suspect() {
            let Some(entered) = bridge.suspects.begin_or_wait(subscription, delivery, lease.crashes > 0) else {
                match subscription.state() {
                    State::Open => {}
                    // A removal may have cancelled the waiting suspects before this one was added.
                    State::Closed => self.cancel_all(subscription),
                    State::Paused => self.release_leases(subscription, true),
                }
                return None;
            };
            delivery = entered;
            lease.begin_turn();
            if !bridge.mark(lease) {
                bridge.inbound.leases.lock().lose_behind(lease);
                self.cancel(subscription, delivery);
                return None;
            }
        }
        lease.begin_call(now);
        Some(delivery)
    }

    /// Ends the call under a lease, and the turn of a suspect: when the delivery is settled, with or without a call, and
    /// before a retry may begin.
    pub(crate) fn end_leased_call(self: &Arc<Self>, lease: &HeldLease) {
        lease.end_call();
        let Some(bridge) = &self.bridge else { return };
        let next = if lease.end_turn() {
            if !lease.is_settled() {
                // The delivery waits for a retry in this process, which must not count as a crash.
                bridge.unmark(lease);
            }
            bridge.suspects.end()
        } else if lease.is_suspect() {
            bridge.suspects.take_next()
        } else {
            return;
        };
        for (subscription, delivery) in next {
            subscription.inbox.push_due(delivery);
            self.after_enqueue(&subscription);
        }
    }
}
