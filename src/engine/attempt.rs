//! One attempt at one delivery: checks the lease, calls the handler, passes the outcome to `settle`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use crate::event::Status;
use crate::queue::QueuedDelivery;
use crate::subscription::{CallScope, Delivery, Outcome, State, Subscription, guarded};
use crate::telemetry::trace;

/// The end of an attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) outcome: Outcome,
    /// Monotonic time at which the call ended.
    pub(crate) ended: u64,
}

impl Engine {
    /// Runs one attempt and settles it. The caller holds a permit. `now` is a recent time; returns a later one.
    pub(crate) fn attempt(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        delivery: QueuedDelivery,
        now: u64,
    ) -> u64 {
        let Some(lease) = delivery.lease() else { return self.run(subscription, delivery, now) };
        let lease = Arc::clone(lease);
        // `now` may date from before this process was frozen, so the lease is checked against a new time.
        let now = self.clock.now();
        match self.before_leased_call(subscription, delivery, &lease, now) {
            Some(delivery) => self.run(subscription, delivery, now),
            None => self.clock.now(),
        }
    }

    fn run(self: &Arc<Self>, subscription: &Arc<Subscription>, mut delivery: QueuedDelivery, now: u64) -> u64 {
        match subscription.begin_call() {
            State::Open => {}
            State::Paused if delivery.lease().is_none() => {
                subscription.inbox.push_due(delivery);
                // The subscription may have been resumed meanwhile.
                self.after_enqueue(subscription);
                return now;
            }
            State::Paused | State::Closed => {
                self.cancel(subscription, delivery);
                return now;
            }
        }
        subscription.inbox.leave(&mut delivery);
        let leased = delivery.lease().is_some();
        if leased && let Some(bridge) = &self.bridge {
            bridge.inbound.note_free_capacity(subscription);
        }
        delivery.attempts += 1;
        let counts = self.telemetry.counters.here();
        counts.attempts.add_one();
        if delivery.attempts > 1 {
            counts.retries.add_one();
            subscription.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        let first = delivery.record.start_attempt(delivery.attempts, self.clock.wall(now));
        if first
            && !leased
            && let Some(bridge) = &self.bridge
        {
            bridge.note_status(&delivery.record, Status::Processing, None);
        }
        // Until the attempt is settled, because an observer called meanwhile must not wait for this call either.
        let callers = delivery.record.sync_wait().map_or(&[][..], |wait| &wait.callers);
        let scope = CallScope::enter(self.instance.number, subscription.id.0, callers);
        let span = trace::enter_process_span(self.propagator(), subscription, &delivery);
        let outcome = self.call(subscription, &delivery, now);
        span.note(&outcome);
        let ended = self.clock.now();
        subscription.note_call(ended - now);
        self.settle_attempt(subscription, delivery, Attempt { outcome, ended });
        drop(span);
        drop(scope);
        subscription.end_call();
        ended
    }

    /// Calls the handler. A panic is a failed attempt.
    fn call(self: &Arc<Self>, subscription: &Arc<Subscription>, delivery: &QueuedDelivery, started: u64) -> Outcome {
        let record = &delivery.record;
        let attempt = delivery.attempts;
        let lease = delivery.lease().map(|lease| &**lease);
        let view =
            Delivery { context: self.call_context(), subscription, event: &record.event, attempt, lease, started };
        guarded(|| (subscription.handler)(&view)).unwrap_or_else(|panic| Outcome::Retry(format!("handler {panic}")))
    }
}
