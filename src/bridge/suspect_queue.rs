//! The queue of suspects: redeliveries after a lost lease. The rules are in `engine/bridge/crash_guard.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::queue::QueuedDelivery;
use crate::subscription::Subscription;

/// The suspects of one broker.
#[derive(Debug, Default)]
pub(crate) struct SuspectQueue(Mutex<Suspects>);

#[derive(Debug, Default)]
struct Suspects {
    running: bool,
    waiting: VecDeque<(Arc<Subscription>, QueuedDelivery)>,
}

impl SuspectQueue {
    /// Begins the turn of a delivery and returns it. `None` if another suspect runs: then the delivery waits here.
    pub(crate) fn begin_or_wait(
        &self,
        subscription: &Arc<Subscription>,
        delivery: QueuedDelivery,
    ) -> Option<QueuedDelivery> {
        let mut suspects = self.0.lock();
        if suspects.running {
            suspects.waiting.push_back((Arc::clone(subscription), delivery));
            return None;
        }
        suspects.running = true;
        Some(delivery)
    }

    /// Ends the turn.
    pub(crate) fn end(&self) {
        self.0.lock().running = false;
    }

    /// Takes the suspect that has waited longest, if none runs. Does not begin its turn.
    pub(crate) fn take_next(&self) -> Option<(Arc<Subscription>, QueuedDelivery)> {
        let mut suspects = self.0.lock();
        if suspects.running { None } else { suspects.waiting.pop_front() }
    }

    /// Takes the waiting suspects of a subscription.
    pub(crate) fn take_of(&self, subscription: &Subscription) -> Vec<QueuedDelivery> {
        let waiting = &mut self.0.lock().waiting;
        let (taken, remaining) = std::mem::take(waiting).into_iter().partition(|(of, _)| of.id == subscription.id);
        *waiting = remaining;
        let taken: VecDeque<(Arc<Subscription>, QueuedDelivery)> = taken;
        taken.into_iter().map(|(_, delivery)| delivery).collect()
    }
}
