//! Settling: turns the outcome of an attempt into a verdict, a retry or a dead letter, records the verdict, and changes
//! the event's status. [`decide`](Engine::decide) asks the retry policy for a delay. Also requeues local dead letters.

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
use crate::store::{Progress, Record, SharedRecord};
use crate::subscription::{Outcome, Subscription};
use crate::telemetry::trace;

/// The decision on an attempt.
enum Decision {
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
        let (decision, error) = self.decide(subscription, &delivery, outcome);
        if let Some(message) = &error {
            let at = system_time(self.clock.wall(ended));
            delivery.remember(AttemptError { attempt: delivery.attempts, at, message: message.clone() });
        }
        match decision {
            Decision::Retry(delay) => {
                log_retry(subscription, &delivery, delay, error.as_deref());
                if let Err(delivery) = self.defer(delivery, delay, ended) {
                    self.retry_later(subscription, delivery, ended.saturating_add(nanos(delay)));
                }
            }
            Decision::Dead(reason) => self.make_dead_letter(subscription, delivery, reason, error.as_deref(), ended),
            Decision::Final(verdict) => self.end_delivery(subscription, delivery, verdict, error.as_deref(), ended),
        }
    }

    /// Decides what follows from an outcome. The delay of a retry comes from the subscription's retry policy: the
    /// handler's request, else backoff with jitter, and none (a dead letter) once the retries are used up.
    fn decide(
        &self,
        subscription: &Subscription,
        delivery: &QueuedDelivery,
        outcome: Outcome,
    ) -> (Decision, Option<String>) {
        let (requested, message) = match outcome {
            Outcome::Done => return (Decision::Final(Verdict::Done), None),
            Outcome::Skip => return (Decision::Final(Verdict::Skipped), None),
            Outcome::Permanent(message) => return (Decision::Dead(DeadReason::Permanent), Some(message)),
            Outcome::Retry(message) => (None, message),
            Outcome::RetryAfter(delay, message) => (Some(delay), message),
        };
        let decision = match subscription.retry.next_delay(delivery.attempts, requested, self.random()) {
            _ if subscription.is_closed() => Decision::Final(Verdict::Cancelled),
            Some(delay) => Decision::Retry(delay),
            None => Decision::Dead(DeadReason::Exhausted),
        };
        (decision, Some(message))
    }

    /// Adds a delivery to the delayed ones of the timer until it is due. It holds no thread and no place in the queue.
    fn retry_later(self: &Arc<Self>, subscription: &Arc<Subscription>, mut delivery: QueuedDelivery, due: u64) {
        if let Some(lease) = delivery.lease() {
            // Before the retry may begin: its call has a mark and a turn of its own.
            self.end_leased_call(lease);
        }
        subscription.inbox.start_waiting(&mut delivery);
        if self.timer.delayed.add(due, Arc::clone(subscription), delivery) {
            self.timer.wake();
        }
        if subscription.is_closed() || self.lifecycle.phase() != Phase::Running {
            // A removal or a stop may have cancelled the delayed deliveries before this one was added.
            self.cancel_overdue();
        }
    }

    /// Makes a dead letter of a delivery.
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
        // The back end keeps the dead letter of a leased delivery, if it can keep any.
        let is_kept_by_back_end =
            history.lease.is_some() && self.bridge.as_ref().is_some_and(|it| it.operator.is_some());
        delivery.history = history.lease.map(|lease| {
            let errors = letter.errors.iter().cloned().collect();
            Box::new(History { lease: Some(lease), dead: Some(reason), errors, ..History::default() })
        });
        if is_kept_by_back_end {
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

    /// Publishes a notice of a dead letter, if the queues have room. The dead letter of a notice causes no notice.
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

    /// Ends a delivery: records its verdict, and enqueues the next delivery of its lane.
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
            // A removal that emptied the inbox may have missed that one: then it is cancelled here.
            self.after_enqueue(subscription);
        }
    }

    /// Records a verdict: counts, event status, back end, observers, waiting `publish_sync`. Does not advance the lane.
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
        subscription.counters.count(verdict);
        counts.count(verdict);
        let failure = verdict.is_failure();
        if self.bridge.is_some() && history.as_ref().is_none_or(|history| history.lease.is_none()) {
            record.end_local(failure);
        }
        let wall = self.clock.wall(now);
        let progress = record.settle_one(failure, error.filter(|_| failure), wall);
        // Before the event counts as settled: a drain that sees it settled must see this settlement outstanding.
        let History { lease, dead, requeues, errors } = history.map_or_else(History::default, |history| *history);
        if let Some(bridge) = &self.bridge {
            if let Some(lease) = &lease {
                bridge.settle_lease(lease, lease_outcome(verdict, dead, attempts, error, errors.into()));
                self.end_leased_call(lease);
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
        // A `publish_sync` waits for local deliveries only, and already has the verdict of a requeued one.
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

    /// Completes or fails an event, if none of its deliveries is open here. `timed`, a wall time, records the duration.
    pub(super) fn settle_event(&self, record: &SharedRecord, progress: Progress, timed: Option<u64>) {
        if progress.is_open() {
            return;
        }
        let here = self.telemetry.counters.here();
        if let Some(wall) = timed.filter(|_| self.config.metrics) {
            let (took, whole) = record.took(wall);
            self.telemetry.series.settled(here.series(), &record.event, progress.is_failed(), took, whole);
        }
        self.store.closed(record, progress);
        let settled = if progress.is_failed() { &here.failed } else { &here.completed };
        settled.add_one();
        if self.store.is_small() {
            self.fit_store();
        }
        self.lifecycle.event_settled();
    }

    /// Ends a delivery without a call: its subscription is closed or paused, its lease is lost, or the broker stops.
    pub(crate) fn cancel(self: &Arc<Self>, subscription: &Arc<Subscription>, mut delivery: QueuedDelivery) {
        subscription.inbox.leave(&mut delivery);
        self.end_delivery(subscription, delivery, Verdict::Cancelled, None, self.clock.now());
    }

    /// Cancels all deliveries of a subscription that no call runs: queued, parked, due, delayed, and waiting suspects.
    pub(crate) fn cancel_all(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        let now = self.clock.now();
        let delayed = self.timer.delayed.take_if(|waiting| waiting.subscription.id == subscription.id);
        let delayed = delayed.into_iter().map(|waiting| waiting.delivery).chain(self.suspects_of(subscription));
        for mut delivery in subscription.inbox.take_all().into_iter().chain(delayed) {
            subscription.inbox.leave(&mut delivery);
            self.record_verdict(subscription, delivery, Verdict::Cancelled, None, now);
        }
    }

    /// Takes the waiting suspects of a subscription.
    pub(super) fn suspects_of(&self, subscription: &Subscription) -> Vec<QueuedDelivery> {
        self.bridge.as_ref().map(|bridge| bridge.suspects.take_of(subscription)).unwrap_or_default()
    }

    /// Cancels the delayed deliveries of closed subscriptions, and those that are due after the deadline of a stop.
    pub(crate) fn cancel_overdue(self: &Arc<Self>) {
        let deadline = self.lifecycle.drain_deadline();
        let overdue =
            self.timer.delayed.take_if(|waiting| waiting.subscription.is_closed() || waiting.due() > deadline);
        for waiting in overdue {
            self.cancel(&waiting.subscription, waiting.delivery);
        }
    }

    /// Requeues a dead letter of this process, for the subscription that failed or its successor of the same name.
    pub(crate) fn requeue_here(self: &Arc<Self>, id: u64) -> Result<(), RequeueError> {
        let _publishing = self.enter_internal().ok_or(RequeueError::NotRunning)?;
        if self.lifecycle.phase() != Phase::Running {
            return Err(RequeueError::NotRunning);
        }
        let (failed, name) = self.dead_letters.subscription(id).ok_or(RequeueError::NotFound { id })?;
        let Some(failed) = failed else { return self.requeue_to_mirror(id) };
        let Some(subscription) = self.subscriptions.find_for(failed, &name) else {
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

    /// Opens deliveries of a known event. `open` changes the record and returns its earlier progress.
    pub(super) fn reopen(&self, record: &SharedRecord, open: impl FnOnce(&Record) -> Progress) {
        let before = open(record);
        if !before.is_open() {
            let here = self.telemetry.counters.here();
            let reopened = if before.is_failed() { &here.failed_reopened } else { &here.completed_reopened };
            reopened.add_one();
        }
        self.store.reopened(record);
    }
}

/// The outcome of a leased delivery for the back end.
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
        "an attempt failed and will be retried"
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
