//! How the rest of the broker reaches the timer thread.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crossbeam_queue::SegQueue;

use crate::queue::DelayedQueue;
use crate::subscription::Subscription;

/// How the rest of the broker reaches the timer thread.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Deliveries that wait for a retry.
    pub(crate) delayed: DelayedQueue<Arc<Subscription>>,
    pub(super) thread: OnceLock<Thread>,
    /// It ticks often anyway.
    pub(super) ticking: AtomicBool,
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

    /// Makes the timer look at what is due.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Has a subscription watched: something waits for it, and nobody was free at that moment.
    pub(crate) fn watch(&self, subscription: &Arc<Subscription>) {
        if subscription.start_watch() {
            self.watched.push(Arc::clone(subscription));
            if !self.ticking.load(Ordering::SeqCst) {
                self.wake();
            }
        }
    }

    /// Handlers that run longer than `max_handler_time`.
    pub(crate) fn stuck_handlers(&self) -> usize {
        self.stuck.load(Ordering::Relaxed)
    }
}
