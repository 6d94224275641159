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

/// A call under a lease, from before the call begins until the attempt is settled.
pub(crate) struct LeasedCall {
    engine: Arc<Engine>,
    lease: Arc<HeldLease>,
    /// The call has a turn in the queue of suspects.
    is_suspect: bool,
}

impl Drop for LeasedCall {
    fn drop(&mut self) {
        self.lease.end_call();
        if !self.is_suspect {
            return;
        }
        self.lease.clear();
        let Some(bridge) = &self.engine.bridge else { return };
        if !self.lease.is_settled() {
            // The delivery waits for a retry in this process, which must not count as a crash.
            bridge.unmark(&self.lease);
        }
        bridge.suspects.end();
        self.engine.call_next_suspects();
    }
}

impl Engine {
    /// Checks the lease and the crash count before a call, and begins a suspect's turn. Returns the delivery and its
    /// call; `None` if no call may begin: lost lease, dead letter, or not its turn. Blocks for a mark, at most 5 s.
    pub(crate) fn before_leased_call(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        mut delivery: QueuedDelivery,
        lease: Arc<HeldLease>,
        now: u64,
    ) -> Option<(QueuedDelivery, LeasedCall)> {
        // Never `None`: a lease comes from a bridge.
        let bridge = self.bridge.as_ref()?;
        if lease.is_lost(now) {
            bridge.inbound.leases.lock().lose_behind(&lease);
            self.cancel(subscription, delivery);
            return None;
        }
        if lease.crashes >= MAX_CRASHES {
            subscription.inbox.leave(&mut delivery);
            let error = format!("its process ended {} times during the call", lease.crashes);
            self.make_dead_letter(subscription, delivery, DeadReason::CrashLoop, Some(&error), now);
            return None;
        }
        let is_suspect = lease.is_suspect();
        if is_suspect {
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
            if !bridge.mark(&lease) {
                bridge.suspects.end();
                bridge.inbound.leases.lock().lose_behind(&lease);
                self.cancel(subscription, delivery);
                return None;
            }
        }
        lease.begin_call(now);
        Some((delivery, LeasedCall { engine: Arc::clone(self), lease, is_suspect }))
    }

    /// Enqueues the waiting suspects that may begin. Called when a suspect has ended, with or without a turn.
    pub(crate) fn call_next_suspects(self: &Arc<Self>) {
        let next = self.bridge.as_ref().map(|bridge| bridge.suspects.take_next()).unwrap_or_default();
        for (subscription, delivery) in next {
            subscription.inbox.push_due(delivery);
            self.after_enqueue(&subscription);
        }
    }
}
