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
    /// The calls of suspects that run.
    running: usize,
    /// One call runs, and no other may begin.
    is_alone: bool,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    subscription: Arc<Subscription>,
    delivery: QueuedDelivery,
    needs_alone: bool,
}

impl Suspects {
    fn admits(&self, needs_alone: bool) -> bool {
        !self.is_alone && (!needs_alone || self.running == 0)
    }

    /// Takes the waiting suspects that match.
    fn take(&mut self, is_wanted: impl Fn(&Waiting) -> bool) -> Vec<(Arc<Subscription>, QueuedDelivery)> {
        let (taken, remaining): (VecDeque<_>, _) = std::mem::take(&mut self.waiting).into_iter().partition(is_wanted);
        self.waiting = remaining;
        taken.into_iter().map(|waiting| (waiting.subscription, waiting.delivery)).collect()
    }
}

impl SuspectQueue {
    /// Begins the turn of a delivery and returns it. `None` if it must wait for other suspects: then it waits here.
    pub(crate) fn begin_or_wait(
        &self,
        subscription: &Arc<Subscription>,
        delivery: QueuedDelivery,
        needs_alone: bool,
    ) -> Option<QueuedDelivery> {
        let mut suspects = self.0.lock();
        if !suspects.admits(needs_alone) {
            suspects.waiting.push_back(Waiting { subscription: Arc::clone(subscription), delivery, needs_alone });
            return None;
        }
        suspects.running += 1;
        suspects.is_alone = needs_alone;
        Some(delivery)
    }

    /// Ends a turn.
    pub(crate) fn end(&self) {
        let mut suspects = self.0.lock();
        suspects.running -= 1;
        suspects.is_alone = false;
    }

    /// Takes the suspects that may begin, if none runs: all that need not be alone, or without those the one that has
    /// waited longest. Does not begin their turns. While one runs, none of those that wait may begin.
    pub(crate) fn take_next(&self) -> Vec<(Arc<Subscription>, QueuedDelivery)> {
        let mut suspects = self.0.lock();
        if suspects.running > 0 {
            return Vec::new();
        }
        let mut next = suspects.take(|waiting| !waiting.needs_alone);
        if next.is_empty() {
            next.extend(suspects.waiting.pop_front().map(|waiting| (waiting.subscription, waiting.delivery)));
        }
        next
    }

    /// Takes the waiting suspects of a subscription.
    pub(crate) fn take_of(&self, subscription: &Subscription) -> Vec<QueuedDelivery> {
        let taken = self.0.lock().take(|waiting| waiting.subscription.id == subscription.id);
        taken.into_iter().map(|(_, delivery)| delivery).collect()
    }
}
