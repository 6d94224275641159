//! The queue of suspects: redeliveries after a lost lease. The rules are in `engine/bridge/crash_guard.rs`.

use std::collections::{HashSet, VecDeque};
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
    /// Those that run beside others. They wait only for one that runs alone.
    waiting: VecDeque<Waiting>,
    /// Those that run alone.
    waiting_alone: VecDeque<Waiting>,
}

type Waiting = (Arc<Subscription>, QueuedDelivery);

impl Suspects {
    /// Takes the suspects that may begin: those that run beside others, and of those that run alone the first of each
    /// subscription, because a subscription may have no worker free. Whichever begins first makes the others wait again.
    fn take_next(&mut self) -> Vec<Waiting> {
        if self.is_alone {
            return Vec::new();
        }
        let mut next = Vec::from(std::mem::take(&mut self.waiting));
        if self.running == 0 {
            let mut taken = HashSet::new();
            next.extend(take_if(&mut self.waiting_alone, |subscription| taken.insert(subscription.id)));
        }
        next
    }
}

fn take_if(waiting: &mut VecDeque<Waiting>, mut is_wanted: impl FnMut(&Subscription) -> bool) -> VecDeque<Waiting> {
    let (taken, remaining) = std::mem::take(waiting).into_iter().partition(|(subscription, _)| is_wanted(subscription));
    *waiting = remaining;
    taken
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
        if suspects.is_alone || (needs_alone && suspects.running > 0) {
            let waiting = if needs_alone { &mut suspects.waiting_alone } else { &mut suspects.waiting };
            waiting.push_back((Arc::clone(subscription), delivery));
            return None;
        }
        suspects.running += 1;
        suspects.is_alone = needs_alone;
        Some(delivery)
    }

    /// Ends a turn. Returns the suspects that may begin then; their turns have not begun.
    pub(crate) fn end(&self) -> Vec<Waiting> {
        let mut suspects = self.0.lock();
        suspects.running -= 1;
        suspects.is_alone = false;
        suspects.take_next()
    }

    /// Takes the suspects that may begin, after one of those taken before has ended without a turn.
    pub(crate) fn take_next(&self) -> Vec<Waiting> {
        self.0.lock().take_next()
    }

    /// Takes the waiting suspects of a subscription.
    pub(crate) fn take_of(&self, subscription: &Subscription) -> Vec<QueuedDelivery> {
        let mut suspects = self.0.lock();
        let Suspects { waiting, waiting_alone, .. } = &mut *suspects;
        let is_of = |of: &Subscription| of.id == subscription.id;
        let taken = take_if(waiting, is_of).into_iter().chain(take_if(waiting_alone, is_of));
        taken.map(|(_, delivery)| delivery).collect()
    }
}
