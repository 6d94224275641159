//! Retries that wait until they are due, in one heap. They hold no thread; the timer thread takes those that are due.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use parking_lot::Mutex;

use super::QueuedDelivery;

/// The delayed deliveries of one broker.
#[derive(Debug)]
pub(crate) struct DelayedQueue<S> {
    heap: Mutex<Heap<S>>,
}

#[derive(Debug)]
struct Heap<S> {
    waiting: BinaryHeap<Reverse<Delayed<S>>>,
    /// The number of the next delivery: orders those that are due at the same time.
    next: u64,
}

/// A delivery and the monotonic time at which it is due.
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
    /// Adds a delivery that is due at a monotonic time. True if it is due before all others.
    pub(crate) fn add(&self, due: u64, subscription: S, delivery: QueuedDelivery) -> bool {
        let mut heap = self.heap.lock();
        let number = heap.next;
        heap.next += 1;
        let first = heap.waiting.peek().is_none_or(|Reverse(earliest)| due < earliest.due);
        heap.waiting.push(Reverse(Delayed { due, number, subscription, delivery }));
        first
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        self.heap.lock().waiting.peek().map(|Reverse(earliest)| earliest.due)
    }

    pub(crate) fn take_due(&self, now: u64) -> Option<Delayed<S>> {
        let mut heap = self.heap.lock();
        heap.waiting.peek().filter(|Reverse(earliest)| earliest.due <= now)?;
        heap.waiting.pop().map(|Reverse(waiting)| waiting)
    }

    /// Takes the deliveries that match, in no order.
    pub(crate) fn take_if(&self, matches: impl Fn(&Delayed<S>) -> bool) -> Vec<Delayed<S>> {
        let mut heap = self.heap.lock();
        let all = std::mem::take(&mut heap.waiting).into_vec();
        let (taken, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|Reverse(waiting)| matches(waiting));
        heap.waiting = rest.into();
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
