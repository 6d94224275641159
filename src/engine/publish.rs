//! Publishing: route, have room reserved (`admission`), store, enqueue, and call workers. What the verbs promise is told in
//! `broker`; what runs afterwards is in `worker`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admission::{Publishing, Refusal, Reservation, Room, WithoutPlace, release};
use crate::bridge::{Bridge, Unsent};
use crate::delivery::{current_calls, in_handler};
use crate::engine::Engine;
use crate::error::PublishError;
use crate::event::Event;
use crate::inbox::{Place, Queued};
use crate::receipt::{Pending, Receipt};
use crate::router::Kept;
use crate::store::{By, Record, SharedRecord};
use crate::subscription::{State, Subscription};
use crate::trace;
use crate::verdict::{Accepted, SyncReport, Verdict};
use crate::watch::Watch;

/// How often a handler that waits for others looks whether it can help, in nanoseconds.
const HELP_EVERY: u64 = 1_000_000;

/// A route that a publisher keeps.
pub(crate) type KeptRoute = Kept<Arc<Subscription>>;

/// What the store says to an event.
enum Stored {
    /// It is new, and its room is reserved.
    New(SharedRecord),
    /// It was published before.
    Known(SharedRecord),
}

impl Stored {
    fn new_record(&self) -> Option<&SharedRecord> {
        match self {
            Self::New(record) => Some(record),
            Self::Known(_) => None,
        }
    }
}

impl Engine {
    /// Publishes to the subscriptions of this process. Waits for room only if `may_block`.
    pub(crate) fn publish_here(self: &Arc<Self>, event: Event, may_block: bool) -> Result<Accepted, PublishError> {
        match self.enter() {
            Some(publishing) => self.publish_entered(&publishing, event, may_block),
            None => self.refuse(event, Refusal::NotRunning),
        }
    }

    /// A publish of the broker's own: never waits. It is made while the event that caused it is open, so `stop` does not
    /// miss it.
    pub(crate) fn publish_internal(self: &Arc<Self>, event: Event) -> Result<Accepted, PublishError> {
        match self.enter_internal() {
            Some(publishing) => self.publish_entered(&publishing, event, false),
            None => self.refuse(event, Refusal::NotRunning),
        }
    }

    fn publish_entered(
        self: &Arc<Self>,
        publishing: &Publishing<'_>,
        event: Event,
        may_block: bool,
    ) -> Result<Accepted, PublishError> {
        let route = self.router.look_up(event.event_type());
        self.publish_to(publishing, event, route.targets(), may_block)
    }

    /// Like [`publish_here`](Self::publish_here), for a publisher that keeps the route of the event before.
    pub(crate) fn publish_kept(
        self: &Arc<Self>,
        event: Event,
        kept: &mut Option<KeptRoute>,
    ) -> Result<Accepted, PublishError> {
        let Some(publishing) = self.enter() else { return self.refuse(event, Refusal::NotRunning) };
        let route = self.router.renew(kept, event.event_type());
        self.publish_to(&publishing, event, route.targets(), true)
    }

    fn publish_to(
        self: &Arc<Self>,
        publishing: &Publishing<'_>,
        event: Event,
        targets: &[Arc<Subscription>],
        may_block: bool,
    ) -> Result<Accepted, PublishError> {
        let without = match self.admit(publishing, &event, targets, may_block) {
            Ok(Room::Reserved(without)) => without,
            Ok(Room::Known(known)) => return Ok(already(&known)),
            Err(refusal) => return self.refuse(event, refusal),
        };
        self.put(event, targets, 0, &without, None).map(|stored| self.dispatch(stored, targets, &without))
    }

    /// Publishes by way of the back end: the receipt knows its answer. Waits for room here only if `may_block`.
    pub(crate) fn publish_out(
        self: &Arc<Self>,
        bridge: &Bridge,
        event: Event,
        may_block: bool,
    ) -> Result<Receipt, PublishError> {
        let Some(publishing) = self.enter() else { return self.refuse(event, Refusal::NotRunning) };
        let unseen = event.has_unseen_id();
        let targets = self.local_targets(&event);
        let without = match self.admit(&publishing, &event, &targets, may_block) {
            Ok(Room::Reserved(without)) => without,
            Ok(Room::Known(known)) => return Ok(Receipt::known(already(&known))),
            Err(refusal) => return self.refuse(event, refusal),
        };
        let reservation = Reservation { targets, without };
        if bridge.buffers {
            return self.publish_buffered(bridge, &publishing, event, unseen, reservation).map(Receipt::known);
        }
        let (pending, copy) = (Arc::new(Pending::new(bridge.gate())), event.clone());
        self.send_out(bridge, &publishing, Unsent { event, unseen }, Some(reservation), &pending)?;
        Ok(Receipt::pending(pending, copy))
    }

    /// Stores and dispatches an event that the back end holds.
    pub(crate) fn dispatch_reserved(
        self: &Arc<Self>,
        event: Event,
        reservation: Reservation,
    ) -> Result<Accepted, PublishError> {
        let Reservation { targets, without } = reservation;
        self.put(event, &targets, 0, &without, None).map(|stored| self.dispatch(stored, &targets, &without))
    }

    /// Stores and dispatches an event that the mirror will settle as well, once the back end holds it: `buffer` is told of it, or
    /// that it was known.
    pub(crate) fn dispatch_buffered(
        self: &Arc<Self>,
        event: Event,
        reservation: Reservation,
        buffer: impl FnOnce(Option<&SharedRecord>),
    ) -> Result<Accepted, PublishError> {
        let Reservation { targets, without } = reservation;
        let stored = self.put(event, &targets, 1, &without, None)?;
        buffer(stored.new_record());
        Ok(self.dispatch(stored, &targets, &without))
    }

    /// The subscriptions that receive an event from this process, not from a back end.
    fn local_targets(&self, event: &Event) -> Vec<Arc<Subscription>> {
        let route = self.router.route(event.event_type());
        let local = |it: &&Arc<Subscription>| !self.bridge.as_ref().is_some_and(|bridge| bridge.serves(it.scope));
        route.targets().iter().filter(local).cloned().collect()
    }

    /// Publishes, runs one delivery on this thread if a subscription is free, and waits for all of them.
    pub(crate) fn publish_sync(self: &Arc<Self>, event: Event) -> Result<SyncReport, PublishError> {
        let Some(publishing) = self.enter() else { return self.refuse(event, Refusal::NotRunning) };
        let targets = &self.local_targets(&event)[..];
        let callers = current_calls();
        if let Some(caller) = self.would_wait_for(&callers, targets, &event) {
            let name = Arc::clone(&caller.name);
            return self.refuse(event, Refusal::WouldDeadlock(name));
        }
        let watch = Arc::new(Watch::new(callers, trace::current(), targets.len()));
        let without = match self.admit(&publishing, &event, targets, true) {
            Ok(Room::Reserved(without)) => without,
            Ok(Room::Known(record)) => return Ok(known_report(&record)),
            Err(refusal) => return self.refuse(event, refusal),
        };
        match self.confirm_first(&publishing, &event) {
            Ok(false) => {}
            Ok(true) => {
                release(targets, &without);
                let id = event.id().clone();
                return Ok(SyncReport { id, duplicate: true, settled: Vec::new(), open: Vec::new() });
            }
            Err(error) => {
                release(targets, &without);
                return Err(error);
            }
        }
        let buffering = self.bridge.as_ref().filter(|bridge| bridge.buffers);
        let stored = self.put(event, targets, u32::from(buffering.is_some()), &without, Some(Arc::clone(&watch)));
        if let Some(bridge) = buffering {
            self.buffer(bridge, stored.as_ref().ok().and_then(Stored::new_record), false);
        }
        let record = match stored? {
            Stored::New(record) => record,
            Stored::Known(record) => return Ok(known_report(&record)),
        };
        let id = record.event.id().clone();
        let deadline = self.clock.deadline(self.config.sync_timeout);
        let lent = self.fill_and_lend(record, targets, &without, &watch.callers);
        drop(publishing);
        if let Some((subscription, delivery)) = lent {
            self.attempt(&subscription, delivery, self.clock.now());
            self.leave_seat(&subscription);
        }
        if in_handler() {
            self.help_until_settled(&watch, targets, deadline);
        }
        let settled = watch.wait(&self.clock, deadline);
        let is_open = |target: &&Arc<Subscription>| !settled.iter().any(|it| it.subscription == target.id);
        let open = targets.iter().filter(is_open).map(|target| Arc::clone(&target.name)).collect();
        Ok(SyncReport { id, duplicate: false, settled, open })
    }

    /// Has the back end, if there is one, confirm an event that this thread will dispatch by itself, or gets it a place in the
    /// buffer. True if it was known there.
    fn confirm_first(&self, publishing: &Publishing<'_>, event: &Event) -> Result<bool, PublishError> {
        let Some(bridge) = self.bridge.as_ref().filter(|bridge| bridge.has_mirror) else { return Ok(false) };
        if bridge.buffers {
            let reserved = bridge.reserve().map(|()| false);
            return reserved.or_else(|limit| self.refuse(event.clone(), Refusal::Full(limit)));
        }
        let pending = Arc::new(Pending::new(bridge.gate()));
        self.send_out(bridge, publishing, Unsent { event: event.clone(), unseen: false }, None, &pending)?;
        Receipt::pending(pending, event.clone()).wait(self.config.sync_timeout).map(|it| it.duplicate)
    }

    /// Stores an event for which room is reserved, and that `others` will settle besides its deliveries; if it is known, the room
    /// is given back.
    fn put(
        &self,
        event: Event,
        targets: &[Arc<Subscription>],
        others: u32,
        without: &WithoutPlace,
        watch: Option<Arc<Watch>>,
    ) -> Result<Stored, PublishError> {
        let by = By::Publish { instance_id: &self.instance_id, watch: watch.as_ref() };
        let open = targets.len() as u32 + others;
        match self.store_new(event, open, by) {
            Ok(record) => {
                if open == 0 {
                    self.counts.here().completed.add_one();
                }
                self.stream(&record.event);
                Ok(Stored::New(record))
            }
            // It came back from the back end before this publish was done with it.
            Err((event, known)) if known.event.same_content(&event) && known.dispatch_once() => {
                if let Some(watch) = watch {
                    known.watch_by(watch);
                }
                if open > 0 {
                    self.reopen(&known, |record| record.add(open));
                }
                self.stream(&known.event);
                Ok(Stored::New(known))
            }
            Err((event, known)) => {
                release(targets, without);
                match self.known(&event, &known) {
                    Ok(()) => Ok(Stored::Known(known)),
                    Err(refusal) => self.refuse(event, refusal),
                }
            }
        }
    }

    fn stream(&self, event: &Event) {
        if self.streams.is_empty() {
            return;
        }
        let route = self.streams.route(event.event_type());
        let dropped: u64 = route.targets().iter().map(|sink| sink.push(event)).sum();
        if dropped > 0 {
            self.stream_gaps.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn dispatch(self: &Arc<Self>, stored: Stored, targets: &[Arc<Subscription>], without: &WithoutPlace) -> Accepted {
        let record = match stored {
            Stored::New(record) => record,
            Stored::Known(record) => return already(&record),
        };
        let id = record.event.id().clone();
        self.fill(record, targets, without, None);
        Accepted { id, duplicate: false, deliveries: targets.len() }
    }

    /// Puts a delivery into each subscription, but for the one at the index `except`.
    fn fill(
        self: &Arc<Self>,
        record: SharedRecord,
        targets: &[Arc<Subscription>],
        without: &WithoutPlace,
        except: Option<usize>,
    ) {
        // The last one takes the record along, so that an event for one subscription changes no reference count.
        let mut record = Some(record);
        for (index, target) in targets.iter().enumerate() {
            let last = index + 1 == targets.len();
            let shared = if last { record.take() } else { record.clone() };
            let Some(shared) = shared.filter(|_| Some(index) != except) else { continue };
            if !without.contains(&index) || self.make_room(target) {
                target.inbox.push(shared);
                self.after_push(target);
            } else {
                let verdict = if target.is_closed() { Verdict::Cancelled } else { Verdict::Dropped };
                let delivery = Queued::new(shared, Place::None);
                self.conclude(target, delivery, verdict, None, self.clock.now());
            }
        }
    }

    /// Like `fill`, but keeps one delivery for the current thread if its subscription is free, with the seat to run it.
    fn fill_and_lend(
        self: &Arc<Self>,
        record: SharedRecord,
        targets: &[Arc<Subscription>],
        without: &WithoutPlace,
        callers: &[(u64, u64)],
    ) -> Option<(Arc<Subscription>, Queued)> {
        // A subscription that this thread is inside of goes first: nobody else may come to run it.
        let is_caller = |index: &usize| callers.contains(&(self.number, targets[*index].id.0));
        let (first, then): (Vec<usize>, Vec<usize>) = (0..targets.len()).partition(is_caller);
        let seated = first.into_iter().chain(then).find(|&index| {
            let target = &targets[index];
            let is_free = || target.inbox.is_next(target.inbox.lane(&record.event)) && !target.is_paused();
            !without.contains(&index) && is_free() && target.try_seat()
        });
        let Some(lent) = seated else {
            self.fill(record, targets, without, None);
            return None;
        };
        let target = &targets[lent];
        let delivery = Queued::new(SharedRecord::clone(&record), Place::Queue);
        let head = target.inbox.enter_lane(delivery);
        self.fill(record, targets, without, Some(lent));
        if head.is_none() {
            // Another publisher of this key was faster: the delivery is parked, and the seat is of no use.
            self.leave_seat(target);
            if target.is_closed() {
                self.cancel_all(target);
            }
        }
        head.map(|head| (Arc::clone(target), head))
    }

    /// Runs what waits for these subscriptions until the watch has every verdict: a worker that only waited for others could
    /// wait for ever, if all of them did.
    fn help_until_settled(self: &Arc<Self>, watch: &Watch, targets: &[Arc<Subscription>], deadline: u64) {
        while !watch.is_complete() && self.clock.now() < deadline {
            let mut helped = false;
            for target in targets.iter().filter(|target| target.has_ready()) {
                // A seat that is free, or one whose token no worker has come for yet.
                if target.try_seat() || target.pool.take_back(|token| Arc::ptr_eq(token, target)) {
                    if let Some(delivery) = target.inbox.pop() {
                        self.attempt(target, delivery, self.clock.now());
                        helped = true;
                    }
                    self.leave_seat(target);
                }
            }
            if !helped {
                watch.wait_a_moment(&self.clock, self.clock.now().saturating_add(HELP_EVERY).min(deadline));
            }
        }
    }

    /// Gives a seat back that no worker holds.
    fn leave_seat(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        if subscription.leave_seat() {
            // The seat was taken again for what has arrived meanwhile: a worker gets it.
            subscription.pool.submit(Arc::clone(subscription));
        }
    }

    /// Sees to it that a delivery that was just put into an inbox is run; or cancelled if its subscription has gone, or given back
    /// if that is paused.
    pub(crate) fn after_push(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        match subscription.state() {
            State::Open => self.call_worker(subscription),
            State::Paused => self.give_back(subscription, true),
            State::Closed => self.cancel_all(subscription),
        }
    }

    pub(crate) fn call_worker(&self, subscription: &Arc<Subscription>) {
        if subscription.call_worker() {
            self.timer.watch(subscription);
        }
    }
}

fn known_report(known: &Record) -> SyncReport {
    SyncReport { id: known.event.id().clone(), duplicate: true, settled: Vec::new(), open: Vec::new() }
}

fn already(known: &Record) -> Accepted {
    Accepted { id: known.event.id().clone(), duplicate: true, deliveries: 0 }
}
