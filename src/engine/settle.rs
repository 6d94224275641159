//! The one place where a delivery's fate is decided and an event's status changes: done, retry after a delay, dead letter,
//! dropped, cancelled; and the way back from a dead letter.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Attempt;
use super::{Engine, Phase};
use crate::base::{nanos, system_time};
use crate::event::{Event, Payload, Source, Status};
use crate::outcome::{
    AttemptError, DeadLetter, DeadReason, DeliveryReport, NOTICE_TYPE, RequeueError, Settled, Verdict,
};
use crate::provider::LeaseOutcome;
use crate::queue::{History, Place, QueuedDelivery};
use crate::store::{Record, SharedRecord};
use crate::subscription::{Outcome, Subscription};
use crate::telemetry::trace;

/// What follows from an attempt.
enum Next {
    Final(Verdict),
    Retry(Duration),
    Dead(DeadReason),
}

impl Engine {
    /// Settles an attempt. The delivery is the head of its lane, if it has one.
    pub(super) fn settle_attempt(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        mut delivery: QueuedDelivery,
        attempt: Attempt,
    ) {
        let Attempt { outcome, ended } = attempt;
        let (next, error) = self.decide(subscription, &delivery, outcome);
        if let Some(message) = &error {
            let at = system_time(self.clock.wall(ended));
            delivery.remember(AttemptError { attempt: delivery.attempts, at, message: message.clone() });
        }
        match next {
            Next::Retry(delay) => {
                log_retry(subscription, &delivery, delay, error.as_deref());
                if let Err(delivery) = self.defer(delivery, delay, ended) {
                    self.retry_later(subscription, delivery, ended.saturating_add(nanos(delay)));
                }
            }
            Next::Dead(reason) => self.make_dead_letter(subscription, delivery, reason, error.as_deref(), ended),
            Next::Final(verdict) => self.end_delivery(subscription, delivery, verdict, error.as_deref(), ended),
        }
    }

    fn decide(
        &self,
        subscription: &Subscription,
        delivery: &QueuedDelivery,
        outcome: Outcome,
    ) -> (Next, Option<String>) {
        let (requested, message) = match outcome {
            Outcome::Done => return (Next::Final(Verdict::Done), None),
            Outcome::Skip => return (Next::Final(Verdict::Skipped), None),
            Outcome::Permanent(message) => return (Next::Dead(DeadReason::Permanent), Some(message)),
            Outcome::Retry(message) => (None, message),
            Outcome::RetryAfter(delay, message) => (Some(delay), message),
        };
        let next = match subscription.retry.next_delay(delivery.attempts, requested, self.random()) {
            _ if subscription.is_closed() => Next::Final(Verdict::Cancelled),
            Some(delay) => Next::Retry(delay),
            None => Next::Dead(DeadReason::Exhausted),
        };
        (next, Some(message))
    }

    /// The delivery waits for its next attempt; it holds no thread and no place in the queue.
    fn retry_later(self: &Arc<Self>, subscription: &Arc<Subscription>, mut delivery: QueuedDelivery, due: u64) {
        subscription.inbox.start_waiting(&mut delivery);
        if self.timer.delayed.add(due, Arc::clone(subscription), delivery) {
            self.timer.wake();
        }
        if subscription.is_closed() || self.lifecycle.phase() != Phase::Running {
            // Removal or stop may have looked at the waiting deliveries before this one was added.
            self.cancel_overdue();
        }
    }

    /// The delivery becomes a dead letter.
    pub(crate) fn make_dead_letter(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        mut delivery: QueuedDelivery,
        reason: DeadReason,
        error: Option<&str>,
        now: u64,
    ) {
        let dead_at = system_time(self.clock.wall(now));
        let history = delivery.history.take().unwrap_or_default();
        let letter = DeadLetter {
            id: 0,
            event: delivery.record.snapshot(),
            subscription: Some(subscription.id),
            name: Arc::clone(&subscription.name),
            reason,
            attempts: delivery.attempts,
            first_failed_at: history.errors.front().map_or(dead_at, |error| error.at),
            errors: history.errors.into(),
            dead_at,
            requeues: history.requeues,
        };
        log_dead(&letter, error);
        // What a back end handed over it keeps as well, unless it can't.
        let kept_there = history.lease.is_some() && self.bridge.as_ref().is_some_and(|it| it.operator.is_some());
        delivery.history = history.lease.map(|lease| {
            let errors = letter.errors.iter().cloned().collect();
            Box::new(History { lease: Some(lease), dead: Some(reason), errors, ..History::default() })
        });
        if kept_there {
            self.notify(&letter, None);
        } else {
            self.keep_dead_letter(letter, &delivery.record);
        }
        self.end_delivery(subscription, delivery, Verdict::Dead, error, now);
    }

    /// Keeps a dead letter in this process.
    pub(crate) fn keep_dead_letter(self: &Arc<Self>, letter: DeadLetter, record: &SharedRecord) {
        let copy = letter.clone();
        let id = self.dead_letters.add(letter, SharedRecord::clone(record));
        self.notify(&copy, Some(id));
    }

    /// Tells the world about a dead letter, if there is room; never about that of such a notice.
    fn notify(self: &Arc<Self>, letter: &DeadLetter, id: Option<u64>) {
        if letter.event.event_type().as_str() == NOTICE_TYPE {
            return;
        }
        let payload = serde_json::json!({
            "dead_letter_id": id,
            "event_id": letter.event.id().to_string(),
            "event_type": letter.event.event_type().as_str(),
            "subscription": &*letter.name,
            "reason": letter.reason.as_str(),
            "attempts": letter.attempts,
            "error": letter.errors.last().map(|error| error.message.as_str()),
        });
        let notice = Payload::from_serialize(&payload)
            .ok()
            .and_then(|payload| Event::builder(Source::System, NOTICE_TYPE).payload_raw(payload).build().ok());
        let publish =
            |notice| trace::publish_in_span(self.propagator(), notice, |notice| self.publish_internal(notice)).is_ok();
        let published = notice.is_some_and(publish);
        if !published {
            self.dead_letters.lose_notice();
        }
    }

    /// The last word on a delivery that is the head of its lane: the next of its key follows.
    pub(crate) fn end_delivery(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        delivery: QueuedDelivery,
        verdict: Verdict,
        error: Option<&str>,
        now: u64,
    ) {
        let lane = delivery.lane;
        self.record_verdict(subscription, delivery, verdict, error, now);
        if lane.is_some_and(|lane| subscription.inbox.advance(lane)) {
            // It may have moved past a removal that was emptying the inbox: then it is cancelled here.
            self.after_enqueue(subscription);
        }
    }

    /// The last word on a delivery: counts, status, and whoever waits for it. The lane is the caller's affair.
    pub(crate) fn record_verdict(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        delivery: QueuedDelivery,
        verdict: Verdict,
        error: Option<&str>,
        now: u64,
    ) {
        let QueuedDelivery { record, attempts, history, .. } = delivery;
        let counts = self.telemetry.counters.here();
        subscription.counters.verdicts.count(verdict);
        counts.count(verdict);
        let failure = verdict.is_failure();
        if self.bridge.is_some() && history.as_ref().is_none_or(|history| history.lease.is_none()) {
            record.end_local(failure);
        }
        let wall = self.clock.wall(now);
        let progress = record.settle_one(failure, error.filter(|_| failure), wall);
        // The back end is told before the event counts as settled: `stop` waits for both.
        let History { lease, dead, requeues, errors } = history.map_or_else(History::default, |history| *history);
        if let Some(bridge) = &self.bridge {
            if let Some(lease) = &lease {
                bridge.settle_lease(lease, lease_outcome(verdict, dead, attempts, error, errors.into()));
                if lease.is_suspect() {
                    self.call_next_suspect();
                }
            }
            bridge.note_end(&record, progress);
        }
        if verdict == Verdict::Cancelled && self.lifecycle.phase() != Phase::Running {
            self.lifecycle.record_cancelled(record.event.id(), lease.is_some());
        }
        self.settle_event(&record, progress, Some(wall));
        self.observers.notify(&Settled {
            event: &record.event,
            subscription: subscription.id,
            name: &subscription.name,
            verdict,
            attempts,
            error,
        });
        // Who waits, waits for the deliveries here; of one that was requeued since, it has the verdict already.
        if let Some(wait) = record.sync_wait().filter(|_| requeues == 0 && lease.is_none()) {
            wait.note(DeliveryReport {
                subscription: subscription.id,
                name: Arc::clone(&subscription.name),
                verdict,
                attempts,
                error: error.map(String::from),
            });
        }
    }

    /// Ends a delivery that will not be run, because its subscription or the broker has gone.
    pub(crate) fn cancel(self: &Arc<Self>, subscription: &Arc<Subscription>, mut delivery: QueuedDelivery) {
        subscription.inbox.leave(&mut delivery);
        self.end_delivery(subscription, delivery, Verdict::Cancelled, None, self.clock.now());
    }

    /// Cancels everything that waits for a subscription: queued, parked, due, delayed.
    pub(crate) fn cancel_all(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        let now = self.clock.now();
        let delayed = self.timer.delayed.take_if(|waiting| waiting.subscription.id == subscription.id);
        let delayed = delayed.into_iter().map(|waiting| waiting.delivery).chain(self.suspects_of(subscription));
        for mut delivery in subscription.inbox.take_all().into_iter().chain(delayed) {
            subscription.inbox.leave(&mut delivery);
            self.record_verdict(subscription, delivery, Verdict::Cancelled, None, now);
        }
    }

    /// Takes the suspects of a subscription that wait for their turn.
    pub(super) fn suspects_of(&self, subscription: &Subscription) -> Vec<QueuedDelivery> {
        self.bridge.as_ref().map(|bridge| bridge.suspects.take_of(subscription)).unwrap_or_default()
    }

    /// Cancels the delayed deliveries that will never be run: of removed subscriptions, and, while the broker stops, those
    /// that are due after its deadline.
    pub(crate) fn cancel_overdue(self: &Arc<Self>) {
        let deadline = self.lifecycle.drain_deadline();
        let overdue =
            self.timer.delayed.take_if(|waiting| waiting.subscription.is_closed() || waiting.due() > deadline);
        for waiting in overdue {
            self.cancel(&waiting.subscription, waiting.delivery);
        }
    }

    /// Makes a delivery of a dead letter of this process again, for the subscription that failed.
    pub(crate) fn requeue_here(self: &Arc<Self>, id: u64) -> Result<(), RequeueError> {
        let _publishing = self.enter_internal().ok_or(RequeueError::NotRunning)?;
        if self.lifecycle.phase() != Phase::Running {
            return Err(RequeueError::NotRunning);
        }
        let (failed, name) = self.dead_letters.subscription(id).ok_or(RequeueError::NotFound { id })?;
        let Some(failed) = failed else { return self.requeue_to_mirror(id) };
        let Some(subscription) = self.subscriptions.lock().find_for(failed, &name) else {
            return Err(RequeueError::SubscriptionGone { id, name });
        };
        let entry = self.dead_letters.take(id).ok_or(RequeueError::NotFound { id })?;
        let record = entry.record;
        self.reopen(&record, Record::reopen_one);
        if let Some(bridge) = &self.bridge {
            record.reopen_local();
            bridge.note_status(&record, Status::Processing, None);
        }
        let mut delivery = QueuedDelivery::new(record, Place::None);
        delivery.history = Some(Box::new(History { requeues: entry.letter.requeues + 1, ..History::default() }));
        subscription.inbox.enter(delivery);
        self.after_enqueue(&subscription);
        Ok(())
    }
}

/// What the back end is told about the end of a leased delivery.
fn lease_outcome(
    verdict: Verdict,
    dead: Option<DeadReason>,
    attempts: u32,
    error: Option<&str>,
    errors: Vec<AttemptError>,
) -> LeaseOutcome {
    match (verdict, dead) {
        (Verdict::Dead, Some(reason)) => {
            LeaseOutcome::Dead { reason, attempts, error: error.unwrap_or_default().to_owned(), errors }
        }
        (Verdict::Done | Verdict::Skipped, _) => LeaseOutcome::Done { attempts },
        (Verdict::Dead | Verdict::Dropped | Verdict::Cancelled, _) => LeaseOutcome::Released,
    }
}

#[cold]
fn log_retry(subscription: &Subscription, delivery: &QueuedDelivery, delay: Duration, error: Option<&str>) {
    let event = &delivery.record.event;
    tracing::warn!(
        subscription = &*subscription.name,
        event = %event.id(),
        event_type = event.event_type().as_str(),
        attempt = delivery.attempts,
        ?delay,
        error,
        "an attempt failed and will be repeated"
    );
}

#[cold]
fn log_dead(letter: &DeadLetter, error: Option<&str>) {
    tracing::error!(
        subscription = &*letter.name,
        event = %letter.event.id(),
        event_type = letter.event.event_type().as_str(),
        attempts = letter.attempts,
        reason = letter.reason.as_str(),
        error,
        "a delivery became a dead letter"
    );
}
