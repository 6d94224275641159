//! Admission: checks the bounds of the broker and reserves a place for an event in each subscription.
//!
//! The policy of a full queue is applied in four places:
//! - `reserve` (`subscription/reservation.rs`) goes on without a place if the policy drops, else it returns the full
//!   subscription.
//! - [`reserve_places`](Engine::reserve_places) then refuses the event (`Reject`), or waits for room first (`Block`).
//! - [`enqueue_all`](Engine::enqueue_all) (`engine/publish.rs`) runs after the event is stored. For a subscription
//!   without a place it calls `make_room`, and drops the new delivery if that makes no room (always so for
//!   `DropNewest`).
//! - [`make_room`](Engine::make_room) drops the oldest delivery (`DropOldest`).
//!
//! Places are reserved in all subscriptions or in none before anything is stored: a refused event leaves no trace.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{Engine, Phase};
use crate::base::Tally;
use crate::config::Overflow;
use crate::event::{Event, Invalid, Problem};
use crate::outcome::{FullLimit, PublishError, Verdict};
use crate::store::{Record, SharedRecord};
use crate::subscription::{Subscription, Unreserved, in_handler, release, reserve};

/// How often `DropOldest` tries to take the oldest delivery of a full queue before the new delivery is dropped instead.
const DROP_TRIES: usize = 64;

/// Counts a publish of this thread as under way until it is dropped. `stop` waits for these publishes.
pub(crate) struct Publishing<'a> {
    count: &'a Tally,
    /// Allowed while the broker drains.
    internal: bool,
    of_this_thread: PhantomData<*const ()>,
}

impl<'a> Publishing<'a> {
    fn begin(count: &'a Tally, internal: bool) -> Self {
        count.add_one();
        Self { count, internal, of_this_thread: PhantomData }
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.count.subtract_one();
    }
}

/// The result of admission.
pub(super) enum Admission {
    /// Places are reserved, except in these subscriptions.
    Reserved(Unreserved),
    /// The event was published before.
    Known(SharedRecord),
}

/// Why an event is refused. The caller keeps the event, and returns it in the [`PublishError`].
pub(crate) enum Refusal {
    NotRunning,
    Full(FullLimit),
    Invalid(Invalid),
    IdConflict,
    WouldDeadlock(Arc<str>),
    Rejected(String),
}

impl Refusal {
    #[cold]
    fn into_error(self, event: Event) -> PublishError {
        let event = Box::new(event);
        match self {
            Self::NotRunning => PublishError::NotRunning { event },
            Self::Full(limit) => PublishError::Full { event, limit },
            Self::Invalid(reason) => PublishError::Invalid { event, reason },
            Self::IdConflict => PublishError::IdConflict { event },
            Self::WouldDeadlock(name) => PublishError::WouldDeadlock { event, name },
            Self::Rejected(reason) => PublishError::Rejected { event, reason },
        }
    }
}

impl Engine {
    /// Begins a publish, if the broker is running. [`admit`](Self::admit) checks the phase again, in order with `stop`.
    pub(crate) fn enter(&self) -> Option<Publishing<'_>> {
        let publishing = Publishing::begin(&self.telemetry.counters.here().publishing, false);
        self.may_continue(&publishing).then_some(publishing)
    }

    /// Begins a publish of the broker itself, which is also allowed while it drains.
    pub(crate) fn enter_internal(&self) -> Option<Publishing<'_>> {
        let publishing = Publishing::begin(&self.telemetry.counters.here().publishing, true);
        // Between the store of `publishing` and the load of the phase. Pairs with the fence in `begin_draining`.
        fence(Ordering::SeqCst);
        self.may_continue(&publishing).then_some(publishing)
    }

    /// Whether the broker's phase allows the publish.
    fn may_continue(&self, publishing: &Publishing<'_>) -> bool {
        match self.lifecycle.phase() {
            Phase::Running => true,
            Phase::Draining => publishing.internal,
            _ => false,
        }
    }

    /// Counts a refusal and returns the event in the error.
    pub(crate) fn refuse<T>(&self, event: Event, refusal: Refusal) -> Result<T, PublishError> {
        self.telemetry.counters.here().rejected.add_one();
        Err(refusal.into_error(event))
    }

    /// Checks the bounds of the broker and reserves a place in each target. A known event needs no place. Blocks only
    /// if `may_block`, outside of handlers, for a full queue with the policy `Block`.
    pub(super) fn admit(
        &self,
        publishing: &Publishing<'_>,
        event: &Event,
        targets: &[Arc<Subscription>],
        may_block: bool,
    ) -> Result<Admission, Refusal> {
        let (max, actual) = (self.config.max_payload_bytes, event.payload().len());
        if actual > max {
            return Err(Refusal::Invalid(Invalid::new("payload", Problem::TooLong { max, actual })));
        }
        if let Some(known) = self.store.find(event.id()) {
            return self.check_duplicate(event, &known).map(|()| Admission::Known(known));
        }
        let unreserved = match self.reserve_places(targets, may_block) {
            Ok(unreserved) => unreserved,
            Err(_) if self.lifecycle.phase() != Phase::Running => return Err(Refusal::NotRunning),
            Err(limit) => return Err(Refusal::Full(limit)),
        };
        // Publisher: reserves a place (exchange of the inbox's `taken`), then loads the phase. `stop`: exchanges the
        // phase, then loads `taken` in `drain`. All four are SeqCst, so one thread sees the other's write. A publish
        // without a place has only stored `publishing`, with Release: this fence pairs with the one in
        // `begin_draining`, which precedes `drain`'s load of `publishing`.
        if unreserved.len() == targets.len() {
            fence(Ordering::SeqCst);
        }
        if self.may_continue(publishing) {
            return Ok(Admission::Reserved(unreserved));
        }
        release(targets, &unreserved);
        Err(Refusal::NotRunning)
    }

    /// Counts a duplicate. Refuses an event whose id is known with other content.
    pub(crate) fn check_duplicate(&self, event: &Event, known: &Record) -> Result<(), Refusal> {
        if !known.event.same_content(event) {
            return Err(Refusal::IdConflict);
        }
        self.telemetry.counters.here().duplicates.add_one();
        Ok(())
    }

    /// Whether `max_in_flight` is reached, by a cached sum of the settled counts, renewed only if it seems reached.
    fn reaches_max_in_flight(&self) -> bool {
        let (accepted, max) = (self.store.accepted_at_most(), self.config.max_in_flight as u64);
        if accepted.saturating_sub(self.telemetry.counters.settled_seen.load(Ordering::Relaxed)) < max {
            return false;
        }
        let settled = self.telemetry.counters.settled();
        self.telemetry
            .counters
            .settled_seen
            .store(settled.saturating_sub(self.telemetry.counters.reopened()), Ordering::Relaxed);
        self.in_flight(settled) >= max
    }

    /// Reserves a place in each target, waiting for full ones where the policy is `Block`.
    fn reserve_places(&self, targets: &[Arc<Subscription>], may_block: bool) -> Result<Unreserved, FullLimit> {
        if self.reaches_max_in_flight() {
            return Err(FullLimit::InFlight { max: self.config.max_in_flight as u64 });
        }
        // The subscriptions that were found full, by index, each with the deadline of its `Block`.
        let mut deadlines: Vec<(usize, u64)> = Vec::new();
        loop {
            let (full, unreserved) = match reserve(targets) {
                Ok(unreserved) => return Ok(unreserved),
                Err(full) => full,
            };
            release(&targets[..full], &unreserved);
            let target = &targets[full];
            let limit =
                || FullLimit::Subscription { name: Arc::clone(&target.name), capacity: target.inbox.capacity() };
            let Overflow::Block(timeout) = target.overflow else { return Err(limit()) };
            if !may_block || in_handler() {
                return Err(limit());
            }
            // The deadline of a subscription counts from when it was first found full. Renewing it could block a
            // publisher for ever when several subscriptions are full in turn.
            let earlier = deadlines.iter().find(|(index, _)| *index == full);
            let deadline = earlier.map_or_else(|| self.clock.deadline(timeout), |(_, deadline)| *deadline);
            if earlier.is_none() {
                deadlines.push((full, deadline));
            }
            let give_up = || target.is_closed() || self.lifecycle.phase() != Phase::Running;
            let in_time = target.inbox.wait_for_room(&self.clock, deadline, give_up);
            if !in_time || self.lifecycle.phase() != Phase::Running {
                return Err(limit());
            }
        }
    }

    /// Takes a place from the oldest delivery of a full queue, if its policy is `DropOldest`. False: drop the new one.
    pub(crate) fn make_room(self: &Arc<Self>, target: &Arc<Subscription>) -> bool {
        if target.overflow != Overflow::DropOldest || target.is_closed() || target.inbox.is_full_of_waiting() {
            return false;
        }
        for _ in 0..DROP_TRIES {
            if target.inbox.reserve() {
                return true;
            }
            let now = self.clock.now();
            match target.inbox.take_oldest() {
                Some(mut delivery) => {
                    target.inbox.leave(&mut delivery);
                    self.record_verdict(target, delivery, Verdict::Dropped, None, now);
                }
                // Workers have taken every delivery that holds a place, and are about to release these places.
                None => std::thread::yield_now(),
            }
        }
        false
    }
}
