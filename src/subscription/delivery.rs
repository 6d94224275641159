//! What a handler gets to see: one attempt at one delivery. And which calls the current thread is inside of.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bridge::Held;
use crate::engine::Engine;
use crate::event::Event;
use crate::subscription::Subscription;
use crate::verdict::SubscriptionId;

/// One attempt to deliver an event to a subscription: what a handler is called with.
pub struct Delivery<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) subscription: &'a Arc<Subscription>,
    pub(crate) event: &'a Event,
    pub(crate) attempt: u32,
    /// The lease under which a back end handed it over.
    pub(crate) lease: Option<&'a Held>,
    /// Monotonic time at which the call began.
    pub(crate) started: u64,
}

impl Delivery<'_> {
    /// The event, shared with every other subscription.
    pub fn event(&self) -> &Event {
        self.event
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The subscription.
    pub fn subscription(&self) -> SubscriptionId {
        self.subscription.id
    }

    /// The name of the subscription.
    pub fn name(&self) -> &str {
        &self.subscription.name
    }

    /// True once the result is not waited for any more: the broker's stop has reached its deadline, the call runs longer than
    /// the subscription's `handler_deadline`, or the lease of a durable back end was lost, so that another member may run the
    /// same delivery. A long handler should look now and then, and return.
    pub fn cancelled(&self) -> bool {
        self.engine.calls_cancelled.load(Ordering::Relaxed)
            || self
                .subscription
                .handler_deadline
                .is_some_and(|limit| self.engine.clock.now().saturating_sub(self.started) >= limit)
            || self.lease.is_some_and(|lease| lease.is_lost(self.engine.clock.now()))
    }
}

impl fmt::Debug for Delivery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("event", &self.event.id())
            .field("subscription", &self.subscription.name)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

thread_local! {
    static CALLS: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread as a worker, until it ends.
pub(crate) fn become_worker() {
    IS_WORKER.set(true);
}

/// Whether the current thread belongs to a broker or is inside of a handler: then it must not wait for either.
pub(crate) fn in_handler() -> bool {
    IS_WORKER.get() || with_calls(|calls| !calls.is_empty()).unwrap_or(false)
}

/// The calls that the current thread is inside of, as (broker, subscription), and those that wait for it.
pub(crate) fn current_calls() -> Vec<(u64, u64)> {
    with_calls(|calls| calls.clone()).unwrap_or_default()
}

/// Nothing if the thread is ending and has dropped the variable already: then it is inside of no call.
fn with_calls<R>(then: impl FnOnce(&mut Vec<(u64, u64)>) -> R) -> Option<R> {
    CALLS.try_with(|calls| then(&mut calls.borrow_mut())).ok()
}

/// Notes the calls that the current thread is inside of, until it is dropped.
#[derive(Debug)]
pub(crate) struct CallScope {
    depth: usize,
}

impl CallScope {
    /// Enters a call, on behalf of the callers that wait for it.
    pub(crate) fn enter(broker: u64, subscription: u64, callers: &[(u64, u64)]) -> Self {
        let depth = with_calls(|calls| {
            let depth = calls.len();
            calls.push((broker, subscription));
            calls.extend_from_slice(callers);
            depth
        });
        Self { depth: depth.unwrap_or(0) }
    }
}

impl Drop for CallScope {
    fn drop(&mut self) {
        with_calls(|calls| calls.truncate(self.depth));
    }
}
