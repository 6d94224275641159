//! Deliveries that wait for their time: one heap. A waiting retry holds no thread; the timer thread takes what is due.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use parking_lot::Mutex;

use super::QueuedDelivery;

/// The waiting deliveries of one broker.
#[derive(Debug)]
pub(crate) struct DelayedQueue<S> {
    heap: Mutex<Heap<S>>,
}

#[derive(Debug)]
struct Heap<S> {
    waiting: BinaryHeap<Reverse<Delayed<S>>>,
    /// Numbers those that are due at the same moment.
    next: u64,
}

/// A delivery that waits.
#[derive(Debug)]
pub(crate) struct Delayed<S> {
    due: u64,
    number: u64,
    pub(crate) subscription: S,
    pub(crate) delivery: QueuedDelivery,
}

impl<S> Default for DelayedQueue<S> {
    fn default() -> Self {
        Self { heap: Mutex::new(Heap { waiting: BinaryHeap::new(), next: 0 }) }
    }
}

impl<S> DelayedQueue<S> {
    /// Adds a delivery that is due at a monotonic time. True if it is the first of all.
    pub(crate) fn add(&self, due: u64, subscription: S, delivery: QueuedDelivery) -> bool {
        let mut heap = self.heap.lock();
        let number = heap.next;
        heap.next += 1;
        let first = heap.waiting.peek().is_none_or(|Reverse(earliest)| due < earliest.due);
        heap.waiting.push(Reverse(Delayed { due, number, subscription, delivery }));
        first
    }

    /// When the first is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.heap.lock().waiting.peek().map(|Reverse(earliest)| earliest.due)
    }

    /// Takes one delivery that is due.
    pub(crate) fn take_due(&self, now: u64) -> Option<Delayed<S>> {
        let mut heap = self.heap.lock();
        heap.waiting.peek().filter(|Reverse(earliest)| earliest.due <= now)?;
        heap.waiting.pop().map(|Reverse(waiting)| waiting)
    }

    /// Takes those that match, in no order.
    pub(crate) fn take_if(&self, matches: impl Fn(&Delayed<S>) -> bool) -> Vec<Delayed<S>> {
        let mut heap = self.heap.lock();
        let all = std::mem::take(&mut heap.waiting).into_vec();
        let (taken, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|Reverse(waiting)| matches(waiting));
        heap.waiting = kept.into();
        taken.into_iter().map(|Reverse(waiting)| waiting).collect()
    }
}

impl<S> Delayed<S> {
    pub(crate) fn due(&self) -> u64 {
        self.due
    }
}

impl<S> PartialEq for Delayed<S> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<S> Eq for Delayed<S> {}

impl<S> PartialOrd for Delayed<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S> Ord for Delayed<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}
