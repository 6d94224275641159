//! Publishing: check, route, reserve room, store, enqueue. The only place where an overflow policy is applied.
//!
//! Room is reserved in every matching subscription before anything is stored, so a refused event leaves nothing behind.
//! What the verbs promise is told in `broker`; what runs afterwards is in `worker`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bridge::Bridge;
use crate::config::{Overflow, Scope};
use crate::delivery::{current_calls, in_handler};
use crate::engine::Engine;
use crate::error::{FullLimit, Invalid, Problem, PublishError};
use crate::event::{Event, Status};
use crate::inbox::{Oldest, Place, Queued};
use crate::lifecycle::Phase;
use crate::receipt::{Pending, Receipt};
use crate::store::Record;
use crate::subscription::Subscription;
use crate::verdict::{Accepted, SyncReport, Verdict};
use crate::watch::Watch;

/// How often a publisher looks for the oldest delivery of a full queue before it drops its own.
const DROP_TRIES: usize = 64;

/// Marks a publish that is under way; `stop` waits for those.
pub(crate) struct Publishing<'a>(&'a AtomicU64);

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Subscriptions, by index, that have no room and whose policy is to drop something, or that were removed meanwhile.
type WithoutPlace = Vec<usize>;

/// What is there for an event before it is stored.
enum Room {
    /// A place in each subscription.
    Reserved(Event, WithoutPlace),
    /// It was published before.
    Known(Arc<Record>),
}

/// What the store says to an event.
enum Stored {
    /// It is new, and its room is reserved.
    New(Arc<Record>, WithoutPlace),
    /// It was published before.
    Known(Arc<Record>),
}

/// Room for an event that the back end has to confirm first.
pub(crate) struct Reservation {
    targets: Vec<Arc<Subscription>>,
    without: WithoutPlace,
}

impl Reservation {
    /// Gives the room back.
    pub(crate) fn release(&self) {
        release(&self.targets, &self.without);
    }
}

impl Engine {
    /// Enters a publish, if the broker takes events.
    pub(crate) fn enter(&self) -> Option<Publishing<'_>> {
        let count = &self.counts.here().publishing;
        count.fetch_add(1, Ordering::SeqCst);
        let publishing = Publishing(count);
        (self.lifecycle.phase() == Phase::Running).then_some(publishing)
    }

    /// Enters a publish of the broker's own, which may also happen while it drains.
    fn enter_internal(&self) -> Option<Publishing<'_>> {
        let count = &self.counts.here().publishing;
        count.fetch_add(1, Ordering::SeqCst);
        let publishing = Publishing(count);
        matches!(self.lifecycle.phase(), Phase::Running | Phase::Draining).then_some(publishing)
    }

    /// Publishes to the subscriptions of this process. Waits for room only if `may_block`.
    pub(crate) fn publish_here(self: &Arc<Self>, event: Event, may_block: bool) -> Result<Accepted, PublishError> {
        match self.enter() {
            Some(_publishing) => self.publish_entered(event, may_block),
            None => self.refuse(PublishError::NotRunning { event: event.into() }),
        }
    }

    /// A publish of the broker's own: never waits. It is made while the event that caused it is open, so `stop` does not
    /// miss it.
    pub(crate) fn publish_internal(self: &Arc<Self>, event: Event) -> Result<Accepted, PublishError> {
        match self.enter_internal() {
            Some(_publishing) => self.publish_entered(event, false),
            None => self.refuse(PublishError::NotRunning { event: event.into() }),
        }
    }

    fn publish_entered(self: &Arc<Self>, event: Event, may_block: bool) -> Result<Accepted, PublishError> {
        let event = self.admit(event)?;
        let event_type = event.event_type().clone();
        self.router.with_route(&event_type, |route| {
            let targets = route.targets();
            let stored = match self.reserve_or_find(event, targets, may_block)? {
                Room::Known(known) => Stored::Known(known),
                Room::Reserved(event, without) => self.put(event, targets, without, None)?,
            };
            match stored {
                Stored::New(record, without) => {
                    self.fill(&record, targets, &without);
                    Ok(Accepted { id: record.event.id().clone(), duplicate: false, deliveries: targets.len() })
                }
                Stored::Known(record) => Ok(already(&record)),
            }
        })
    }

    /// Publishes by way of the back end: the receipt knows its answer. Waits for room here only if `may_block`.
    pub(crate) fn publish_out(
        self: &Arc<Self>,
        bridge: &Bridge,
        event: Event,
        may_block: bool,
    ) -> Result<Receipt, PublishError> {
        let Some(publishing) = self.enter() else {
            return self.refuse(PublishError::NotRunning { event: event.into() });
        };
        let event = self.admit(event)?;
        let targets = self.local_targets(&event);
        let (event, without) = match self.reserve_or_find(event, &targets, may_block)? {
            Room::Reserved(event, without) => (event, without),
            Room::Known(known) => return Ok(Receipt::known(already(&known))),
        };
        let (pending, copy) = (Arc::new(Pending::default()), event.clone());
        self.send_out(bridge, &publishing, event, Some(Reservation { targets, without }), &pending)?;
        Ok(Receipt::pending(pending, copy))
    }

    /// Stores and dispatches an event that the back end holds.
    pub(crate) fn dispatch_reserved(
        self: &Arc<Self>,
        event: Event,
        reservation: Reservation,
    ) -> Result<Accepted, PublishError> {
        let Reservation { targets, without } = reservation;
        match self.put(event, &targets, without, None)? {
            Stored::New(record, without) => {
                self.fill(&record, &targets, &without);
                Ok(Accepted { id: record.event.id().clone(), duplicate: false, deliveries: targets.len() })
            }
            Stored::Known(record) => Ok(already(&record)),
        }
    }

    /// The subscriptions that receive an event from this process, not from a back end.
    fn local_targets(&self, event: &Event) -> Vec<Arc<Subscription>> {
        let route = self.router.route(event.event_type());
        let local = |it: &&Arc<Subscription>| !self.bridge.as_ref().is_some_and(|bridge| bridge.serves(it.scope));
        route.targets().iter().filter(local).cloned().collect()
    }

    /// Publishes, runs one delivery on this thread if a subscription is free, and waits for all of them.
    pub(crate) fn publish_sync(self: &Arc<Self>, event: Event) -> Result<SyncReport, PublishError> {
        let Some(publishing) = self.enter() else {
            return self.refuse(PublishError::NotRunning { event: event.into() });
        };
        let event = self.admit(event)?;
        let targets = &self.local_targets(&event)[..];
        let callers = current_calls();
        if let Some(caller) = self.would_wait_for(&callers, targets, &event) {
            let name = Arc::clone(&caller.name);
            return self.refuse(PublishError::WouldDeadlock { event: event.into(), name });
        }
        let watch = Arc::new(Watch::new(callers, targets.len()));
        let stored = match self.reserve_or_find(event, targets, true)? {
            Room::Known(known) => Stored::Known(known),
            Room::Reserved(event, without) => {
                if let Err(error) = self.confirm_first(&publishing, &event) {
                    release(targets, &without);
                    return Err(error);
                }
                self.put(event, targets, without, Some(Arc::clone(&watch)))?
            }
        };
        let (record, without) = match stored {
            Stored::New(record, without) => (record, without),
            Stored::Known(record) => {
                let id = record.event.id().clone();
                return Ok(SyncReport { id, duplicate: true, settled: Vec::new(), open: Vec::new() });
            }
        };
        let id = record.event.id().clone();
        let deadline = self.clock.deadline(self.config.sync_timeout);
        let lent = self.fill_and_lend(&record, targets, &without, &watch.callers);
        drop(record);
        drop(publishing);
        if let Some((subscription, delivery)) = lent {
            self.attempt(&subscription, delivery, self.clock.now());
            self.leave_seat(&subscription);
        }
        let settled = watch.wait(&self.clock, deadline);
        let is_open = |target: &&Arc<Subscription>| !settled.iter().any(|it| it.subscription == target.id);
        let open = targets.iter().filter(is_open).map(|target| Arc::clone(&target.name)).collect();
        Ok(SyncReport { id, duplicate: false, settled, open })
    }

    /// Counts a refusal and passes it on.
    pub(crate) fn refuse<T>(&self, error: PublishError) -> Result<T, PublishError> {
        self.counts.here().rejected.fetch_add(1, Ordering::Relaxed);
        Err(error)
    }

    /// Checks the bounds of this broker.
    fn admit(&self, event: Event) -> Result<Event, PublishError> {
        let (max, actual) = (self.config.max_payload_bytes, event.payload().len());
        if actual > max {
            let reason = Invalid::new("payload", Problem::TooLong { max, actual });
            return self.refuse(PublishError::Invalid { event: event.into(), reason });
        }
        Ok(event)
    }

    /// Reserves room in every subscription, unless the event is known, which needs none.
    fn reserve_or_find(
        &self,
        event: Event,
        targets: &[Arc<Subscription>],
        may_block: bool,
    ) -> Result<Room, PublishError> {
        if let Some(known) = self.store.find(event.id()) {
            return self.known(event, known).map(Room::Known);
        }
        match self.reserve(targets, may_block && !in_handler()) {
            Ok(without) => Ok(Room::Reserved(event, without)),
            Err(_) if self.lifecycle.phase() != Phase::Running => {
                self.refuse(PublishError::NotRunning { event: event.into() })
            }
            Err(limit) => self.refuse(PublishError::Full { event: event.into(), limit }),
        }
    }

    /// Has the back end, if there is one, confirm an event that this thread will dispatch by itself.
    fn confirm_first(&self, publishing: &Publishing<'_>, event: &Event) -> Result<(), PublishError> {
        let Some(bridge) = self.bridge.as_ref().filter(|bridge| bridge.has_mirror) else { return Ok(()) };
        let pending = Arc::new(Pending::default());
        self.send_out(bridge, publishing, event.clone(), None, &pending)?;
        Receipt::pending(pending, event.clone()).wait(self.config.sync_timeout).map(|_| ())
    }

    /// Stores an event for which room is reserved; if it is known, the room is given back.
    fn put(
        &self,
        mut event: Event,
        targets: &[Arc<Subscription>],
        without: WithoutPlace,
        watch: Option<Arc<Watch>>,
    ) -> Result<Stored, PublishError> {
        let adopted = event.adopt(&self.instance_id);
        match self.store.put(event, targets.len() as u32, watch) {
            Ok(record) => {
                if targets.is_empty() {
                    self.counts.here().completed.fetch_add(1, Ordering::SeqCst);
                    // Unless the back end has deliveries of it, which decide.
                    if let Some(bridge) = self.bridge.as_ref().filter(|bridge| !bridge.serves(Scope::Group)) {
                        bridge.note_status(record.event.id(), Status::Completed, None);
                    }
                }
                if !self.streams.is_empty() {
                    self.stream(&record.event);
                }
                Ok(Stored::New(record, without))
            }
            Err((mut event, known)) => {
                release(targets, &without);
                if adopted {
                    event.disown();
                }
                self.known(event, known).map(Stored::Known)
            }
        }
    }

    /// What to say to an event whose id is known.
    fn known(&self, event: Event, known: Arc<Record>) -> Result<Arc<Record>, PublishError> {
        if !known.event.same_content(&event) {
            return self.refuse(PublishError::IdConflict { event: event.into() });
        }
        self.counts.here().duplicates.fetch_add(1, Ordering::Relaxed);
        Ok(known)
    }

    fn stream(&self, event: &Event) {
        let route = self.streams.route(event.event_type());
        let dropped: u64 = route.targets().iter().map(|sink| sink.push(event)).sum();
        if dropped > 0 {
            self.stream_gaps.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn reserve(&self, targets: &[Arc<Subscription>], may_block: bool) -> Result<WithoutPlace, FullLimit> {
        if self.is_full_of_open_events() {
            return Err(FullLimit::InFlight { max: self.config.max_in_flight as u64 });
        }
        self.reserve_places(targets, may_block)
    }

    fn is_full_of_open_events(&self) -> bool {
        let (accepted, max) = (self.store.accepted_at_most(), self.config.max_in_flight as u64);
        if accepted.saturating_sub(self.settled_seen.load(Ordering::Relaxed)) < max {
            return false;
        }
        let settled = self.counts.settled();
        self.settled_seen.store(settled, Ordering::Relaxed);
        self.store.accepted().saturating_sub(settled) >= max
    }

    fn reserve_places(&self, targets: &[Arc<Subscription>], may_block: bool) -> Result<WithoutPlace, FullLimit> {
        let mut waiting: Option<(usize, u64)> = None;
        loop {
            let (full, without) = match reserve_all(targets) {
                Ok(without) => return Ok(without),
                Err(full) => full,
            };
            release(&targets[..full], &without);
            let target = &targets[full];
            let limit =
                || FullLimit::Subscription { name: Arc::clone(&target.name), capacity: target.inbox.capacity() };
            let Overflow::Block(patience) = target.overflow else { return Err(limit()) };
            if !may_block {
                return Err(limit());
            }
            // The patience with a subscription counts from when it was found full, and starts anew with another one.
            let deadline = match waiting {
                Some((index, deadline)) if index == full => deadline,
                _ => self.clock.deadline(patience),
            };
            waiting = Some((full, deadline));
            let give_up = || target.is_closed() || self.lifecycle.phase() != Phase::Running;
            let in_time = target.inbox.wait_for_room(&self.clock, deadline, give_up);
            if !in_time || self.lifecycle.phase() != Phase::Running {
                return Err(limit());
            }
        }
    }

    /// Puts a delivery into each subscription.
    pub(crate) fn fill(self: &Arc<Self>, record: &Arc<Record>, targets: &[Arc<Subscription>], without: &WithoutPlace) {
        self.fill_except(record, targets, without, None);
    }

    fn fill_except(
        self: &Arc<Self>,
        record: &Arc<Record>,
        targets: &[Arc<Subscription>],
        without: &WithoutPlace,
        except: Option<usize>,
    ) {
        for (index, target) in targets.iter().enumerate() {
            if Some(index) == except {
                continue;
            }
            let placed = without.is_empty() || !without.contains(&index) || self.make_room(target);
            if placed {
                let delivery = Queued::new(Arc::clone(record), Place::Queue);
                if target.inbox.push(delivery, target.lane(&record.event)) {
                    self.after_push(target);
                } else if target.is_closed() {
                    self.cancel_all(target);
                }
            } else {
                let verdict = if target.is_closed() { Verdict::Cancelled } else { Verdict::Dropped };
                let delivery = Queued::new(Arc::clone(record), Place::None);
                self.conclude(target, delivery, verdict, None, self.clock.now());
            }
        }
    }

    /// Like `fill`, but keeps one delivery for the current thread if its subscription is free, with the seat to run it.
    fn fill_and_lend(
        self: &Arc<Self>,
        record: &Arc<Record>,
        targets: &[Arc<Subscription>],
        without: &WithoutPlace,
        callers: &[(u64, u64)],
    ) -> Option<(Arc<Subscription>, Queued)> {
        // A subscription that this thread is inside of goes first: nobody else may come to run it.
        let is_caller = |index: &usize| callers.contains(&(self.number, targets[*index].id.0));
        let (first, then): (Vec<usize>, Vec<usize>) = (0..targets.len()).partition(is_caller);
        let seated = first.into_iter().chain(then).find(|&index| {
            let target = &targets[index];
            !without.contains(&index) && target.inbox.is_free(target.lane(&record.event)) && target.try_seat()
        });
        let Some(lent) = seated else {
            self.fill(record, targets, without);
            return None;
        };
        let target = &targets[lent];
        let delivery = Queued::new(Arc::clone(record), Place::Queue);
        let head = match target.lane(&record.event) {
            Some(lane) => target.inbox.enter(delivery, lane),
            None => Some(delivery),
        };
        self.fill_except(record, targets, without, Some(lent));
        if head.is_none() {
            // Another publisher of this key was faster: the delivery is parked, and the seat is of no use.
            self.leave_seat(target);
        }
        head.map(|head| (Arc::clone(target), head))
    }

    /// Gives a seat back that no worker holds.
    fn leave_seat(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        if subscription.leave_seat() {
            // The seat was taken again for what has arrived meanwhile: a worker gets it.
            subscription.pool.submit(Arc::clone(subscription));
        }
    }

    /// Sees to it that a delivery that was just put into an inbox is run, or cancelled if its subscription has gone.
    pub(crate) fn after_push(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        self.call_worker(subscription);
        if subscription.is_closed() {
            self.cancel_all(subscription);
        }
    }

    pub(crate) fn call_worker(&self, subscription: &Arc<Subscription>) {
        if subscription.call_worker() {
            self.timer.watch(subscription);
        }
    }

    /// Makes room in a full queue, as its policy says. False if the new delivery is the one to drop.
    fn make_room(self: &Arc<Self>, target: &Arc<Subscription>) -> bool {
        if target.overflow != Overflow::DropOldest || target.is_closed() {
            return false;
        }
        for _ in 0..DROP_TRIES {
            if target.inbox.reserve() {
                return true;
            }
            let now = self.clock.now();
            match target.inbox.take_oldest() {
                Some(Oldest::Head(mut delivery)) => {
                    target.inbox.leave(&mut delivery);
                    self.finish(target, delivery, Verdict::Dropped, None, now);
                }
                Some(Oldest::Parked(mut delivery)) => {
                    target.inbox.leave(&mut delivery);
                    self.conclude(target, delivery, Verdict::Dropped, None, now);
                }
                // Everything that holds a place is about to start.
                None => std::thread::yield_now(),
            }
        }
        false
    }

    /// The subscription that this thread is inside of, and that a synchronous publish would have to wait for.
    fn would_wait_for<'a>(
        &self,
        callers: &[(u64, u64)],
        targets: &'a [Arc<Subscription>],
        event: &Event,
    ) -> Option<&'a Arc<Subscription>> {
        let is_caller = |target: &&Arc<Subscription>| callers.contains(&(self.number, target.id.0));
        targets
            .iter()
            .filter(is_caller)
            .find(|target| !target.has_free_seat() || !target.inbox.is_free(target.lane(event)))
    }
}

fn already(known: &Record) -> Accepted {
    Accepted { id: known.event.id().clone(), duplicate: true, deliveries: 0 }
}

/// Takes a place in every subscription that has room. Fails at the first that is full and drops nothing; the places taken
/// before it are the caller's to release.
fn reserve_all(targets: &[Arc<Subscription>]) -> Result<WithoutPlace, (usize, WithoutPlace)> {
    let mut without = WithoutPlace::new();
    for (index, target) in targets.iter().enumerate() {
        if target.inbox.reserve() {
            continue;
        }
        if target.is_closed() || matches!(target.overflow, Overflow::DropOldest | Overflow::DropNewest) {
            without.push(index);
        } else {
            return Err((index, without));
        }
    }
    Ok(without)
}

fn release(targets: &[Arc<Subscription>], without: &WithoutPlace) {
    for (index, target) in targets.iter().enumerate() {
        if !without.contains(&index) {
            target.inbox.release(1);
        }
    }
}
