//! Admission: whether there is room for an event, and in which subscriptions. The only place where an overflow policy is
//! applied.
//!
//! A place is reserved in every matching subscription before anything is stored, so a refused event leaves nothing behind.
//! What happens to an admitted event is in `dispatch`.

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

/// How often a publisher looks for the oldest delivery of a full queue before it drops its own.
const DROP_TRIES: usize = 64;

/// Marks a publish of this thread that is under way; `stop` waits for those.
pub(crate) struct Publishing<'a> {
    count: &'a Tally,
    /// It goes on while the broker drains.
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

/// What is there for an event before it is stored.
pub(super) enum Admission {
    /// A place in each subscription.
    Reserved(Unreserved),
    /// It was published before.
    Known(SharedRecord),
}

/// Why an event is refused. The event itself stays with the caller until it is handed back.
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
    fn of(self, event: Event) -> PublishError {
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
    /// Enters a publish, if the broker takes events. That `stop` does not miss it is settled by [`admit`](Self::admit) only.
    pub(crate) fn enter(&self) -> Option<Publishing<'_>> {
        let publishing = Publishing::begin(&self.telemetry.counters.here().publishing, false);
        self.goes_on(&publishing).then_some(publishing)
    }

    /// Enters a publish of the broker's own, which may also happen while it drains.
    pub(crate) fn enter_internal(&self) -> Option<Publishing<'_>> {
        let publishing = Publishing::begin(&self.telemetry.counters.here().publishing, true);
        fence(Ordering::SeqCst);
        self.goes_on(&publishing).then_some(publishing)
    }

    fn goes_on(&self, publishing: &Publishing<'_>) -> bool {
        match self.lifecycle.phase() {
            Phase::Running => true,
            Phase::Draining => publishing.internal,
            _ => false,
        }
    }

    /// Counts a refusal and hands the event back.
    pub(crate) fn refuse<T>(&self, event: Event, refusal: Refusal) -> Result<T, PublishError> {
        self.telemetry.counters.here().rejected.add_one();
        Err(refusal.of(event))
    }

    /// Checks the bounds of this broker, and reserves room in every subscription, unless the event is known, which needs none.
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
            return self.known(event, &known).map(|()| Admission::Known(known));
        }
        let unreserved = match self.reserve_places(targets, may_block) {
            Ok(unreserved) => unreserved,
            Err(_) if self.lifecycle.phase() != Phase::Running => return Err(Refusal::NotRunning),
            Err(limit) => return Err(Refusal::Full(limit)),
        };
        // `stop` changes the phase and then looks for reserved places: it sees those, or this sees the phase. If there are none,
        // it has to see the mark of this publish, which takes a fence.
        if unreserved.len() == targets.len() {
            fence(Ordering::SeqCst);
        }
        if self.goes_on(publishing) {
            return Ok(Admission::Reserved(unreserved));
        }
        release(targets, &unreserved);
        Err(Refusal::NotRunning)
    }

    /// What to say to an event whose id is known.
    pub(crate) fn known(&self, event: &Event, known: &Record) -> Result<(), Refusal> {
        if !known.event.same_content(event) {
            return Err(Refusal::IdConflict);
        }
        self.telemetry.counters.here().duplicates.add_one();
        Ok(())
    }

    fn is_full_of_open_events(&self) -> bool {
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

    fn reserve_places(&self, targets: &[Arc<Subscription>], may_block: bool) -> Result<Unreserved, FullLimit> {
        if self.is_full_of_open_events() {
            return Err(FullLimit::InFlight { max: self.config.max_in_flight as u64 });
        }
        // Which subscriptions were found full, and until when there is patience with them.
        let mut waiting: Vec<(usize, u64)> = Vec::new();
        loop {
            let (full, unreserved) = match reserve(targets) {
                Ok(unreserved) => return Ok(unreserved),
                Err(full) => full,
            };
            release(&targets[..full], &unreserved);
            let target = &targets[full];
            let limit =
                || FullLimit::Subscription { name: Arc::clone(&target.name), capacity: target.inbox.capacity() };
            let Overflow::Block(patience) = target.overflow else { return Err(limit()) };
            if !may_block || in_handler() {
                return Err(limit());
            }
            // The patience with a subscription counts from when it was first found full: it is not renewed, or
            // subscriptions that are full in turn could hold a publisher up for ever.
            let known = waiting.iter().find(|(index, _)| *index == full);
            let deadline = known.map_or_else(|| self.clock.deadline(patience), |(_, deadline)| *deadline);
            if known.is_none() {
                waiting.push((full, deadline));
            }
            let give_up = || target.is_closed() || self.lifecycle.phase() != Phase::Running;
            let in_time = target.inbox.wait_for_room(&self.clock, deadline, give_up);
            if !in_time || self.lifecycle.phase() != Phase::Running {
                return Err(limit());
            }
        }
    }

    /// Makes room in a full queue, as its policy says. False if the new delivery is the one to drop.
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
                // Everything that holds a place is about to start.
                None => std::thread::yield_now(),
            }
        }
        false
    }
}
