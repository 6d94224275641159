//! The mirror thread: takes accepted events and status changes out to the back end, in batches, until it has answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::wait::Pauses;
use super::{Bridge, MAX_BACKLOG, MAX_UNTOLD};
use crate::admission::{Publishing, Refusal, Reservation};
use crate::engine::Engine;
use crate::error::{FullLimit, PublishError};
use crate::event::Event;
use crate::handler::guarded;
use crate::provider::{BackendError, Mirror, SendOutcome, StatusChange};
use crate::receipt::{Gate, Pending};
use crate::store::SharedRecord;
use crate::verdict::Accepted;

/// Events per call of the mirror.
const MAX_BATCH: usize = 256;
/// Publishers of so many batches in a row wait apart: who waits for the next one is not woken by the outcomes of the one before.
pub(super) const GATES: usize = 4;
/// So few publishers are waited for after they were let go: more are busy with each other for longer than they would save.
const FEW: usize = 16;
/// And so long at most.
const GATHERING: Duration = Duration::from_micros(50);
/// When they have not come in time, they are not waited for in so many batches.
const ALONE: u32 = 16;

/// What the mirror thread is asked to do.
pub(super) enum Job {
    /// Hand an event over.
    Send(Outgoing),
    /// Look: there are statuses to tell, or the end has come.
    Wake,
}

/// An event that the back end is to hold.
pub(crate) struct Unsent {
    pub(crate) event: Event,
    /// Nobody could know [its id](Event::has_unseen_id) when it was published.
    pub(crate) unseen: bool,
}

/// An event on its way out.
pub(super) struct Outgoing {
    event: Event,
    unseen: bool,
    then: Then,
}

impl Outgoing {
    /// What the mirror gets: with the name of the instance.
    fn copy(&self, instance_id: &Arc<str>) -> Event {
        let mut event = self.event.clone();
        event.adopt(instance_id, None);
        if self.unseen {
            event.keep_unseen();
        }
        event
    }
}

/// Events that the mirror gets at once.
#[derive(Default)]
pub(super) struct Batch {
    outgoing: Vec<Outgoing>,
    events: Vec<Event>,
}

impl Batch {
    fn add(&mut self, job: Job, instance_id: &Arc<str>) {
        if let Job::Send(outgoing) = job {
            self.events.push(outgoing.copy(instance_id));
            self.outgoing.push(outgoing);
        }
    }
}

/// Outcomes that are seen to while the back end works on the next batch, if there is one.
type Later = Vec<(Outgoing, Option<SendOutcome>, bool)>;

/// What follows from the back end's answer.
pub(super) enum Then {
    /// A publisher waits for it.
    Answer {
        /// The room that the event needs here. Nothing if the publisher dispatches it by itself, once it is confirmed.
        reservation: Option<Reservation>,
        pending: Arc<Pending>,
    },
    /// The event was accepted before, and stays open here until then.
    Settle(SharedRecord),
}

impl Then {
    fn is_waited_for(&self) -> bool {
        matches!(self, Self::Answer { .. })
    }
}

impl Bridge {
    /// Counts an event that will wait for the back end; fails if too many do.
    pub(crate) fn reserve(&self) -> Result<(), FullLimit> {
        if self.has_too_much_untold() {
            return Err(FullLimit::Mirror { max: MAX_UNTOLD });
        }
        let fits = |waiting: u64| (waiting < MAX_BACKLOG as u64).then_some(waiting + 1);
        match self.unconfirmed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits) {
            Ok(_) => Ok(()),
            Err(_) => Err(FullLimit::Mirror { max: MAX_BACKLOG }),
        }
    }

    /// Takes what waits for the mirror, as far as there is room.
    fn make_ready(&self, instance_id: &Arc<str>) {
        let mut ready = self.ready.lock();
        let room = MAX_BATCH - ready.outgoing.len();
        self.jobs.1.try_iter().take(room).for_each(|job| ready.add(job, instance_id));
    }

    /// Waits a moment until so many events are ready, and gives way to whoever brings them. False if they have not come.
    fn gather(&self, instance_id: &Arc<str>, expected: usize) -> bool {
        let began = Instant::now();
        while self.ready.lock().outgoing.len() < expected {
            if began.elapsed() > GATHERING {
                return false;
            }
            thread::yield_now();
            self.make_ready(instance_id);
        }
        true
    }

    /// Where a publisher waits whose event goes out with the next batch.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gates[self.round.load(Ordering::Relaxed) % GATES]
    }

    /// Lets the publishers go whose outcomes are known.
    fn open_gates(&self) {
        self.gates.iter().for_each(|gate| gate.open_if_due());
    }

    fn is_ready(&self) -> bool {
        !self.ready.lock().outgoing.is_empty()
    }

    /// An event that was counted waits no longer.
    pub(super) fn answered(&self) {
        self.unconfirmed.fetch_sub(1, Ordering::SeqCst);
    }

    /// Hands an event that was counted to the mirror thread.
    pub(super) fn enqueue(&self, unsent: Unsent, then: Then) {
        let Unsent { event, unseen } = unsent;
        // As in `command`.
        let _ = self.jobs.0.send(Job::Send(Outgoing { event, unseen, then }));
    }
}

impl Engine {
    /// Hands an event to the mirror thread, with the room that is reserved for it here.
    pub(crate) fn send_out(
        &self,
        bridge: &Bridge,
        _publishing: &Publishing<'_>,
        unsent: Unsent,
        reservation: Option<Reservation>,
        pending: &Arc<Pending>,
    ) -> Result<(), PublishError> {
        if let Err(limit) = bridge.reserve() {
            release(reservation.as_ref());
            return self.refuse(unsent.event, Refusal::Full(limit));
        }
        bridge.enqueue(unsent, Then::Answer { reservation, pending: Arc::clone(pending) });
        Ok(())
    }

    pub(super) fn run_mirror(self: &Arc<Self>, mut mirror: Option<Box<dyn Mirror>>) {
        crate::delivery::become_worker();
        let Some(bridge) = &self.bridge else { return };
        let mut pauses = Pauses::new();
        let (mut later, mut last, mut alone) = (Later::new(), 0, 0_u32);
        loop {
            bridge.make_ready(&self.instance_id);
            // Publishers that are let go come back one after the other. Those who wait already go with them: two groups that take turns
            // would need twice the round trips.
            let expected = last + bridge.ready.lock().outgoing.len();
            let is_worth_it = (1..=FEW).contains(&last) && expected <= FEW && alone == 0;
            alone = alone.saturating_sub(1);
            if is_worth_it || !bridge.is_ready() {
                self.see_to(bridge, &mut later);
            }
            if is_worth_it && !bridge.gather(&self.instance_id, expected) {
                alone = ALONE;
            }
            // With statuses left over from a failure there is something to do anyway.
            if !bridge.is_ready() && !bridge.closing.is_set() && bridge.untold.lock().is_empty() {
                let first = bridge.jobs.1.recv();
                first.into_iter().for_each(|job| bridge.ready.lock().add(job, &self.instance_id));
                bridge.make_ready(&self.instance_id);
            }
            last = 0;
            match &mut mirror {
                Some(mirror) if bridge.is_ready() => {
                    later = self.mirror_batch(bridge, &mut **mirror, later);
                    last = later.iter().filter(|(outgoing, ..)| outgoing.then.is_waited_for()).count();
                }
                _ => {}
            }
            let failed = self.tell_statuses(bridge).is_err();
            if bridge.closing.is_set() && bridge.jobs.1.is_empty() && !bridge.is_ready() && later.is_empty() {
                return;
            }
            if failed {
                pauses.pause(self, bridge);
            } else {
                pauses = Pauses::new();
            }
        }
    }

    /// Sends what is ready until the back end has answered. When the broker has stopped, it is tried once more. Meanwhile sees to what was left
    /// for later and gets the next batch ready. Returns what is left for later now.
    fn mirror_batch(self: &Arc<Self>, bridge: &Bridge, mirror: &mut dyn Mirror, mut before: Later) -> Later {
        let Batch { outgoing: batch, events } = std::mem::take(&mut *bridge.ready.lock());
        bridge.round.fetch_add(1, Ordering::Relaxed);
        let events = Arc::new(events);
        // Should the back end never answer, `stop` reports these.
        *bridge.sending.lock() = Some(Arc::clone(&events));
        let mut pauses = Pauses::new();
        let mut tries = 0;
        let outcomes = loop {
            tries += 1;
            let last_try = bridge.closing.is_set();
            let mut meanwhile = || {
                self.see_to(bridge, &mut before);
                bridge.make_ready(&self.instance_id);
            };
            let sent = guarded(|| mirror.send(&events, &mut meanwhile));
            self.see_to(bridge, &mut before);
            match sent.unwrap_or_else(|panic| Err(BackendError::Unavailable(panic))) {
                Ok(outcomes) => break outcomes,
                Err(error @ BackendError::Unavailable(_)) => {
                    bridge.note_error(&error);
                    if last_try {
                        *bridge.sending.lock() = None;
                        bridge.unflushed.lock().extend(events.iter().cloned());
                        batch.into_iter().for_each(|outgoing| self.give_up(bridge, outgoing, &error.to_string()));
                        bridge.open_gates();
                        return Later::new();
                    }
                    pauses.pause(self, bridge);
                }
                Err(BackendError::Refused(reason)) => break vec![SendOutcome::Refused(reason); events.len()],
                Err(error) => break vec![SendOutcome::Refused(error.to_string()); events.len()],
            }
        };
        *bridge.sending.lock() = None;
        let mut outcomes = outcomes.into_iter();
        batch.into_iter().map(|outgoing| (outgoing, outcomes.next(), tries > 1)).collect()
    }

    /// What follows from outcomes.
    fn see_to(self: &Arc<Self>, bridge: &Bridge, outcomes: &mut Later) {
        for (outgoing, outcome, tried_before) in outcomes.drain(..) {
            match outcome {
                Some(SendOutcome::Held) => self.confirm(bridge, outgoing),
                // Its answer was lost: it may have been stored by the first try.
                Some(SendOutcome::Known) if tried_before => self.confirm(bridge, outgoing),
                Some(SendOutcome::Known) => self.know(bridge, outgoing),
                Some(SendOutcome::Conflict) => self.reject(bridge, outgoing, Refusal::IdConflict),
                Some(SendOutcome::Full { max_backlog: max }) => {
                    self.reject(bridge, outgoing, Refusal::Full(FullLimit::Backlog { max }));
                }
                Some(SendOutcome::Refused(reason)) => self.reject(bridge, outgoing, Refusal::Rejected(reason)),
                None => {
                    bridge.unflushed.lock().push(outgoing.event.clone());
                    self.give_up(bridge, outgoing, "the back end gave no outcome");
                }
            }
        }
        bridge.open_gates();
    }

    /// The back end holds an event: now it is accepted, and dispatched to the local subscriptions.
    fn confirm(self: &Arc<Self>, bridge: &Bridge, outgoing: Outgoing) {
        bridge.mirrored.fetch_add(1, Ordering::SeqCst);
        let Outgoing { event, then, .. } = outgoing;
        match then {
            Then::Answer { reservation: Some(reservation), pending } => {
                pending.resolve(self.dispatch_reserved(event, reservation));
            }
            Then::Answer { reservation: None, pending } => {
                pending.resolve(Ok(Accepted { id: event.id().clone(), duplicate: false, deliveries: 0 }));
            }
            Then::Settle(record) => self.settle_buffered(bridge, &record, None),
        }
        bridge.answered();
    }

    /// The back end has held the event before it was published.
    fn know(&self, bridge: &Bridge, outgoing: Outgoing) {
        self.counts.here().duplicates.add_one();
        let Outgoing { event, then, .. } = outgoing;
        match then {
            Then::Answer { reservation, pending } => {
                release(reservation.as_ref());
                pending.resolve(Ok(Accepted { id: event.id().clone(), duplicate: true, deliveries: 0 }));
            }
            Then::Settle(record) => self.settle_buffered(bridge, &record, None),
        }
        bridge.answered();
    }

    fn reject(self: &Arc<Self>, bridge: &Bridge, outgoing: Outgoing, refusal: Refusal) {
        let Outgoing { event, then, .. } = outgoing;
        match then {
            Then::Answer { reservation, pending } => {
                release(reservation.as_ref());
                pending.resolve(self.refuse(event, refusal));
            }
            Then::Settle(record) => self.bury_buffered(bridge, &record, &refusal),
        }
        bridge.answered();
    }

    /// Gives up what the mirror thread has left behind. Returns all that the back end has not confirmed.
    pub(crate) fn give_up_the_rest(&self, bridge: &Bridge) -> Vec<Event> {
        let ready = std::mem::take(&mut *bridge.ready.lock()).outgoing;
        let waiting = bridge.jobs.1.try_iter().filter_map(|job| match job {
            Job::Send(outgoing) => Some(outgoing),
            Job::Wake => None,
        });
        for outgoing in ready.into_iter().chain(waiting) {
            bridge.unflushed.lock().push(outgoing.event.clone());
            self.give_up(bridge, outgoing, "the broker has stopped");
        }
        bridge.open_gates();
        let mut unflushed = std::mem::take(&mut *bridge.unflushed.lock());
        unflushed.extend(bridge.sending.lock().iter().flat_map(|events| events.iter().cloned()));
        unflushed
    }

    /// Nobody knows whether the back end holds an event. One that was accepted before stays open.
    fn give_up(&self, bridge: &Bridge, outgoing: Outgoing, reason: &str) {
        if let Then::Answer { reservation, pending } = outgoing.then {
            release(reservation.as_ref());
            let event = Box::new(outgoing.event);
            pending.resolve(Err(PublishError::Unknown { event, reason: reason.to_owned() }));
        }
        bridge.answered();
    }

    /// Tells the provider's store the statuses that it does not know; what fails stays for the next time.
    fn tell_statuses(&self, bridge: &Bridge) -> Result<(), BackendError> {
        let Some(store) = &bridge.store else { return Ok(()) };
        loop {
            let changes: Vec<StatusChange> = {
                let mut untold = bridge.untold.lock();
                let ids: Vec<_> = untold.keys().take(MAX_BATCH).cloned().collect();
                ids.iter().filter_map(|id| untold.remove(id)).collect()
            };
            if changes.is_empty() {
                return Ok(());
            }
            let told = guarded(|| store.update_statuses(&changes))
                .unwrap_or_else(|panic| Err(BackendError::Unavailable(panic)));
            let mut settled = changes.len() as u64;
            if let Err(error) = &told {
                bridge.note_error(error);
                // What is refused now is refused for ever.
                if matches!(error, BackendError::Unavailable(_)) {
                    let mut untold = bridge.untold.lock();
                    for change in changes {
                        // One that changed meanwhile was counted again.
                        if !untold.contains_key(&change.id) {
                            settled -= 1;
                            untold.insert(change.id.clone(), change);
                        }
                    }
                }
            }
            bridge.owed.fetch_sub(settled, Ordering::SeqCst);
            self.lifecycle.event_settled();
            if let Err(error @ BackendError::Unavailable(_)) = told {
                return Err(error);
            }
        }
    }
}

fn release(reservation: Option<&Reservation>) {
    if let Some(reservation) = reservation {
        reservation.release();
    }
}
