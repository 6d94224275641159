//! What a handler is called with: one attempt at one delivery.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};

use super::Subscription;
use crate::base::Clock;
use crate::event::Event;
use crate::outcome::SubscriptionId;
use crate::queue::HeldLease;

/// One attempt to deliver an event to a subscription: what a handler is called with.
pub struct Delivery<'a> {
    pub(crate) context: CallContext<'a>,
    pub(crate) subscription: &'a Arc<Subscription>,
    pub(crate) event: &'a Event,
    pub(crate) attempt: u32,
    /// The lease under which a back end handed it over.
    pub(crate) lease: Option<&'a HeldLease>,
    /// Monotonic time at which the call began.
    pub(crate) started: u64,
}

/// What every call of a broker can ask for.
#[derive(Clone, Copy)]
pub(crate) struct CallContext<'a> {
    pub(crate) clock: &'a Clock,
    /// True once `stop` has reached its deadline.
    pub(crate) cancelled: &'a AtomicBool,
    /// The broker's handle, which [`Delivery::broker`] upgrades. Its type belongs to a room above.
    pub(crate) handle: &'a OnceLock<Weak<dyn Any + Send + Sync>>,
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
        let CallContext { clock, cancelled, .. } = self.context;
        let has_passed = |limit| clock.now().saturating_sub(self.started) >= limit;
        cancelled.load(Ordering::Relaxed)
            || self.subscription.handler_deadline.is_some_and(has_passed)
            || self.lease.is_some_and(|lease| lease.is_lost(clock.now()))
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
