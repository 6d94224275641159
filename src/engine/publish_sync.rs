//! `publish_sync`: a publish that runs one delivery on its own thread and waits for the verdict of every delivery.

use std::sync::Arc;

use super::Engine;
use super::admission::{Admission, Refusal};
use super::publish::Stored;
use crate::event::Event;
use crate::outcome::{PublishError, SyncReport};
use crate::queue::{Place, QueuedDelivery};
use crate::store::{Record, SharedRecord, SyncWait};
use crate::subscription::{Subscription, Unreserved, current_calls, in_handler, release};
use crate::telemetry::trace;

/// Time between two checks of a waiting handler for deliveries that it can run itself, in nanoseconds.
const HELP_EVERY: u64 = 1_000_000;

impl Engine {
    /// Publishes, runs one delivery on this thread if a permit is free, waits for all verdicts, at most `sync_timeout`.
    pub(crate) fn publish_sync(self: &Arc<Self>, event: Event) -> Result<SyncReport, PublishError> {
        let Some(publishing) = self.enter() else { return self.refuse(event, Refusal::NotRunning) };
        let targets = &self.local_targets(&event)[..];
        let callers = current_calls();
        if let Some(caller) = self.find_deadlock(&callers, targets, &event) {
            let name = Arc::clone(&caller.name);
            return self.refuse(event, Refusal::WouldDeadlock(name));
        }
        let sync_wait = Arc::new(SyncWait::new(callers, trace::current(), targets.len()));
        let unreserved = match self.admit(&publishing, &event, targets, true) {
            Ok(Admission::Reserved(unreserved)) => unreserved,
            Ok(Admission::Known(record)) => return Ok(duplicate_report(&record)),
            Err(refusal) => return self.refuse(event, refusal),
        };
        match self.confirm_first(&publishing, &event) {
            Ok(false) => {}
            Ok(true) => {
                release(targets, &unreserved);
                let id = event.id().clone();
                return Ok(SyncReport { id, duplicate: true, settled: Vec::new(), open: Vec::new() });
            }
            Err(error) => {
                release(targets, &unreserved);
                return Err(error);
            }
        }
        let buffering = self.bridge.as_ref().filter(|bridge| bridge.outbox.buffers);
        let stored = self.store_published(
            event,
            targets,
            u32::from(buffering.is_some()),
            &unreserved,
            Some(Arc::clone(&sync_wait)),
        );
        if let Some(bridge) = buffering {
            self.buffer(bridge, stored.as_ref().ok().and_then(Stored::new_record), true);
        }
        let record = match stored? {
            Stored::New(record) => record,
            Stored::Known(record) => return Ok(duplicate_report(&record)),
        };
        let id = record.event.id().clone();
        let deadline = self.clock.deadline(self.config.sync_timeout);
        let lent = self.enqueue_and_run_one(record, targets, &unreserved, &sync_wait.callers);
        drop(publishing);
        if let Some((subscription, delivery)) = lent {
            self.attempt(&subscription, delivery, self.clock.now());
            self.release_permit(&subscription);
        }
        if in_handler() {
            self.help_until_settled(&sync_wait, targets, deadline);
        }
        let settled = sync_wait.wait(&self.clock, deadline);
        let is_open = |target: &&Arc<Subscription>| !settled.iter().any(|it| it.subscription == target.id);
        let open = targets.iter().filter(is_open).map(|target| Arc::clone(&target.name)).collect();
        Ok(SyncReport { id, duplicate: false, settled, open })
    }

    /// Like [`enqueue_all`](Self::enqueue_all), but returns one delivery to run here, with a permit, if one is free.
    fn enqueue_and_run_one(
        self: &Arc<Self>,
        record: SharedRecord,
        targets: &[Arc<Subscription>],
        unreserved: &Unreserved,
        callers: &[(u64, u64)],
    ) -> Option<(Arc<Subscription>, QueuedDelivery)> {
        // A subscription that this thread is inside of goes first: possibly no other thread can run it.
        let is_caller = |index: &usize| callers.contains(&(self.instance.number, targets[*index].id.0));
        let (first, then): (Vec<usize>, Vec<usize>) = (0..targets.len()).partition(is_caller);
        let permitted = first.into_iter().chain(then).find(|&index| {
            let target = &targets[index];
            let is_free = || target.inbox.is_next(target.inbox.lane(&record.event)) && !target.is_paused();
            !unreserved.contains(&index) && is_free() && target.try_permit()
        });
        let Some(lent) = permitted else {
            self.enqueue_all(record, targets, unreserved, None);
            return None;
        };
        let target = &targets[lent];
        let delivery = QueuedDelivery::new(SharedRecord::clone(&record), Place::Queue);
        let head = target.inbox.enter_lane(delivery);
        self.enqueue_all(record, targets, unreserved, Some(lent));
        if head.is_none() {
            // A delivery of the same key has entered the lane first: this one is parked, and needs no permit.
            self.release_permit(target);
            if target.is_closed() {
                self.cancel_all(target);
            }
        }
        head.map(|head| (Arc::clone(target), head))
    }

    /// Runs deliveries of the targets on this thread until every verdict has come. If all workers waited in
    /// `publish_sync`, none would be left to run what they wait for.
    fn help_until_settled(self: &Arc<Self>, sync_wait: &SyncWait, targets: &[Arc<Subscription>], deadline: u64) {
        while !sync_wait.is_complete() && self.clock.now() < deadline {
            let mut helped = false;
            for target in targets.iter().filter(|target| target.has_ready()) {
                // A free permit, or one whose token still waits in the pool for a worker.
                if target.try_permit() || target.pool.take_back(|token| Arc::ptr_eq(token, target)) {
                    if let Some(delivery) = target.inbox.pop() {
                        self.attempt(target, delivery, self.clock.now());
                        helped = true;
                    }
                    self.release_permit(target);
                }
            }
            if !helped {
                sync_wait.wait_a_moment(&self.clock, self.clock.now().saturating_add(HELP_EVERY).min(deadline));
            }
        }
    }

    /// A target that this thread is inside of, with all permits in calls or a busy lane: waiting for it would deadlock.
    fn find_deadlock<'a>(
        &self,
        callers: &[(u64, u64)],
        targets: &'a [Arc<Subscription>],
        event: &Event,
    ) -> Option<&'a Arc<Subscription>> {
        let is_caller = |target: &&Arc<Subscription>| callers.contains(&(self.instance.number, target.id.0));
        targets
            .iter()
            .filter(is_caller)
            .find(|target| target.all_permits_in_calls() || !target.inbox.is_free(target.inbox.lane(event)))
    }
}

/// The report for an event that was published before.
fn duplicate_report(known: &Record) -> SyncReport {
    SyncReport { id: known.event.id().clone(), duplicate: true, settled: Vec::new(), open: Vec::new() }
}
