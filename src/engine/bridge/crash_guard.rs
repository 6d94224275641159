//! The crash guard: what came back from a lost lease may have killed its holder, so it runs alone, one in the whole process at a
//! time, and the back end is told before the call. If the process dies of it, only that one collects a crash; after
//! [`MAX_CRASHES`] of them it becomes a dead letter. What waits for its turn keeps its place, its lane and its lease.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::held::Held;
use crate::dead_letter::DeadReason;
use crate::engine::Engine;
use crate::inbox::Queued;
use crate::subscription::{State, Subscription};

/// So many crashes make a dead letter.
const MAX_CRASHES: u32 = 3;

/// Those that wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    running: bool,
    waiting: VecDeque<(Arc<Subscription>, Queued)>,
}

impl Suspects {
    /// Begins a turn, or has the delivery wait for one.
    fn enter(&self, subscription: &Arc<Subscription>, delivery: Queued) -> Option<Queued> {
        let mut turns = self.0.lock();
        if turns.running {
            turns.waiting.push_back((Arc::clone(subscription), delivery));
            return None;
        }
        turns.running = true;
        Some(delivery)
    }

    /// Ends a turn.
    fn leave(&self) {
        self.0.lock().running = false;
    }

    /// The next that waits, if nobody has the turn. It has not begun: it enters again.
    fn next(&self) -> Option<(Arc<Subscription>, Queued)> {
        let mut turns = self.0.lock();
        if turns.running { None } else { turns.waiting.pop_front() }
    }

    /// Takes those of a subscription that wait.
    pub(crate) fn take_of(&self, subscription: &Subscription) -> Vec<Queued> {
        let waiting = &mut self.0.lock().waiting;
        let (taken, kept) = std::mem::take(waiting).into_iter().partition(|(of, _)| of.id == subscription.id);
        *waiting = kept;
        let taken: VecDeque<(Arc<Subscription>, Queued)> = taken;
        taken.into_iter().map(|(_, delivery)| delivery).collect()
    }
}

/// A call under a lease, from before it begins until it is settled.
pub(crate) struct LeasedCall {
    engine: Arc<Engine>,
    held: Arc<Held>,
    alone: bool,
}

impl Drop for LeasedCall {
    fn drop(&mut self) {
        self.held.end_call();
        if !self.alone {
            return;
        }
        self.held.clear();
        let Some(bridge) = &self.engine.bridge else { return };
        if !self.held.is_settled() {
            // It will be retried: that is no crash.
            bridge.unmark(&self.held);
        }
        self.engine.suspects.leave();
        self.engine.call_next_suspect();
    }
}

impl Engine {
    /// What has to be seen to before a call under a lease. Returns the delivery and its call, or nothing if it does not run
    /// now: its lease is lost, it is a dead letter, or it waits for its turn.
    pub(crate) fn approach(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        mut delivery: Queued,
        held: Arc<Held>,
        now: u64,
    ) -> Option<(Queued, LeasedCall)> {
        if held.is_lost(now) {
            if let Some(bridge) = &self.bridge {
                bridge.lose_behind(&held);
            }
            self.cancel(subscription, delivery);
            return None;
        }
        if held.crashes >= MAX_CRASHES {
            subscription.inbox.leave(&mut delivery);
            let error = format!("its process ended {} times during the call", held.crashes);
            self.bury(subscription, delivery, DeadReason::CrashLoop, Some(&error), now);
            return None;
        }
        let alone = held.is_suspect();
        if alone {
            let Some(entered) = self.suspects.enter(subscription, delivery) else {
                match subscription.state() {
                    State::Open => {}
                    // Its removal may have looked at those that wait before this one did.
                    State::Closed => self.cancel_all(subscription),
                    State::Paused => self.give_back(subscription, true),
                }
                return None;
            };
            delivery = entered;
            let marked = self.bridge.as_ref().is_some_and(|bridge| bridge.mark(&held));
            if !marked {
                self.suspects.leave();
                if let Some(bridge) = &self.bridge {
                    bridge.lose_behind(&held);
                }
                self.cancel(subscription, delivery);
                return None;
            }
        }
        held.begin_call(now);
        Some((delivery, LeasedCall { engine: Arc::clone(self), held, alone }))
    }

    /// A suspect has ended its turn, or has ended without one, which may have been the next: the one behind it is called, unless one
    /// runs.
    pub(crate) fn call_next_suspect(self: &Arc<Self>) {
        if let Some((subscription, delivery)) = self.suspects.next() {
            subscription.inbox.push_due(delivery);
            self.after_push(&subscription);
        }
    }
}
