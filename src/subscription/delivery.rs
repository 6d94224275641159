//! The argument of a handler: one attempt at one delivery.

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

/// One attempt at a delivery: the argument of a handler.
pub struct Delivery<'a> {
    pub(crate) context: CallContext<'a>,
    pub(crate) subscription: &'a Arc<Subscription>,
    pub(crate) event: &'a Event,
    pub(crate) attempt: u32,
    /// The lease from the back end, if the delivery came in from one.
    pub(crate) lease: Option<&'a HeldLease>,
    /// Monotonic time at which the call began.
    pub(crate) started: u64,
}

/// The parts of a broker that every call of a handler can reach.
#[derive(Clone, Copy)]
pub(crate) struct CallContext<'a> {
    pub(crate) clock: &'a Clock,
    /// True once `stop` has reached its deadline.
    pub(crate) cancelled: &'a AtomicBool,
    /// The broker's handle, which [`Delivery::broker`] upgrades. Its type belongs to a room above.
    pub(crate) handle: &'a OnceLock<Weak<dyn Any + Send + Sync>>,
}

impl Delivery<'_> {
    /// The event, shared by all its deliveries.
    pub fn event(&self) -> &Event {
        self.event
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The id of the subscription.
    pub fn subscription(&self) -> SubscriptionId {
        self.subscription.id
    }

    /// The name of the subscription.
    pub fn name(&self) -> &str {
        &self.subscription.name
    }

    /// Whether the handler should give up, because its result no longer matters.
    ///
    /// True once the broker's stop has reached its deadline, the call has run for the subscription's
    /// `handler_deadline`, or the lease from a durable back end was lost, so that another member may run the same
    /// delivery. A long handler should check this now and then, and return.
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
