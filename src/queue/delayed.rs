//! Deliveries that wait for their time: one heap. A waiting retry holds no thread; the timer thread takes what is due.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::inbox::Queued;
use crate::subscription::Subscription;

/// The waiting deliveries of one broker.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    heap: Mutex<Heap>,
}

#[derive(Debug, Default)]
struct Heap {
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Numbers those that are due at the same moment.
    next: u64,
}

/// A delivery that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    due: u64,
    number: u64,
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) delivery: Queued,
}

impl Delays {
    /// Adds a delivery that is due at a monotonic time. True if it is the first of all.
    pub(crate) fn add(&self, due: u64, subscription: Arc<Subscription>, delivery: Queued) -> bool {
        let mut heap = self.heap.lock();
        let number = heap.next;
        heap.next += 1;
        let first = heap.waiting.peek().is_none_or(|Reverse(earliest)| due < earliest.due);
        heap.waiting.push(Reverse(Waiting { due, number, subscription, delivery }));
        first
    }

    /// When the first is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.heap.lock().waiting.peek().map(|Reverse(earliest)| earliest.due)
    }

    /// Takes one delivery that is due.
    pub(crate) fn take_due(&self, now: u64) -> Option<Waiting> {
        let mut heap = self.heap.lock();
        heap.waiting.peek().filter(|Reverse(earliest)| earliest.due <= now)?;
        heap.waiting.pop().map(|Reverse(waiting)| waiting)
    }

    /// Takes those that match, in no order.
    pub(crate) fn take_if(&self, matches: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut heap = self.heap.lock();
        let all = std::mem::take(&mut heap.waiting).into_vec();
        let (taken, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|Reverse(waiting)| matches(waiting));
        heap.waiting = kept.into();
        taken.into_iter().map(|Reverse(waiting)| waiting).collect()
    }
}

impl Waiting {
    pub(crate) fn due(&self) -> u64 {
        self.due
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}
