//! The shared side of the timer: delayed deliveries, subscriptions to watch, and waking the timer thread.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crossbeam_queue::SegQueue;

use crate::queue::DelayedQueue;
use crate::subscription::Subscription;

/// The shared side of the timer.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Deliveries that wait for a retry.
    pub(crate) delayed: DelayedQueue<Arc<Subscription>>,
    pub(super) thread: OnceLock<Thread>,
    /// The next tick comes within a millisecond, so a new watch need not wake the thread.
    pub(super) ticking: AtomicBool,
    /// Subscriptions whose watch the next tick begins.
    pub(super) watched: SegQueue<Arc<Subscription>>,
    pub(super) stuck: AtomicUsize,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Self {
            delayed: DelayedQueue::default(),
            thread: OnceLock::new(),
            ticking: AtomicBool::new(false),
            watched: SegQueue::new(),
            stuck: AtomicUsize::new(0),
        }
    }

    /// Makes the timer tick now.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Watches a subscription: its deliveries wait, and no worker was free for them.
    pub(crate) fn watch(&self, subscription: &Arc<Subscription>) {
        if subscription.start_watch() {
            self.watched.push(Arc::clone(subscription));
            if !self.ticking.load(Ordering::SeqCst) {
                self.wake();
            }
        }
    }

    /// The number of handlers that have run for longer than `max_handler_time`.
    pub(crate) fn stuck_handlers(&self) -> usize {
        self.stuck.load(Ordering::Relaxed)
    }
}
