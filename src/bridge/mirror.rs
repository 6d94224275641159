//! The mirror thread: takes accepted events and status changes out to the back end, in batches, until it has answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use flume::TrySendError;

use super::{Bridge, MAX_BACKLOG, MAX_UNTOLD, Pauses};
use crate::admission::{Publishing, Refusal, Reservation};
use crate::engine::Engine;
use crate::error::{FullLimit, PublishError};
use crate::event::Event;
use crate::handler::guarded;
use crate::provider::{BackendError, Mirror, SendOutcome, StatusChange};
use crate::receipt::Pending;
use crate::verdict::Accepted;

/// Events per call of the mirror.
const MAX_BATCH: usize = 256;

/// What the mirror thread is asked to do.
pub(super) enum Job {
    /// Hand an event over.
    Send(Outgoing),
    /// Look: there are statuses to tell, or the end has come.
    Wake,
}

/// An event on its way out.
pub(super) struct Outgoing {
    event: Event,
    /// The room that it needs here. Nothing if the publisher dispatches it by itself, once it is confirmed.
    reservation: Option<Reservation>,
    pending: Arc<Pending>,
}

impl Outgoing {
    fn release(&self) {
        if let Some(reservation) = &self.reservation {
            reservation.release();
        }
    }
}

impl Engine {
    /// Hands an event to the mirror thread, with the room that is reserved for it here.
    pub(crate) fn send_out(
        &self,
        bridge: &Bridge,
        _publishing: &Publishing<'_>,
        event: Event,
        reservation: Option<Reservation>,
        pending: &Arc<Pending>,
    ) -> Result<(), PublishError> {
        if bridge.has_too_much_untold() {
            if let Some(reservation) = &reservation {
                reservation.release();
            }
            return self.refuse(event, Refusal::Full(FullLimit::Mirror { max: MAX_UNTOLD }));
        }
        bridge.unconfirmed.fetch_add(1, Ordering::SeqCst);
        let outgoing = Outgoing { event, reservation, pending: Arc::clone(pending) };
        match bridge.jobs.0.try_send(Job::Send(outgoing)) {
            Err(TrySendError::Full(Job::Send(back)) | TrySendError::Disconnected(Job::Send(back))) => {
                bridge.unconfirmed.fetch_sub(1, Ordering::SeqCst);
                back.release();
                let limit = FullLimit::Mirror { max: MAX_BACKLOG };
                self.refuse(back.event, Refusal::Full(limit))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn run_mirror(self: &Arc<Self>, mut mirror: Option<Box<dyn Mirror>>) {
        crate::delivery::become_worker();
        let Some(bridge) = &self.bridge else { return };
        let mut pauses = Pauses::new();
        loop {
            // With statuses left over from a failure there is something to do anyway.
            let idle = bridge.untold.lock().is_empty();
            let first = if idle { bridge.jobs.1.recv().ok() } else { bridge.jobs.1.try_recv().ok() };
            let mut batch = Vec::new();
            for job in first.into_iter().chain(bridge.jobs.1.try_iter().take(MAX_BATCH - 1)) {
                match job {
                    Job::Send(outgoing) => batch.push(outgoing),
                    Job::Wake => {}
                }
            }
            if let Some(mirror) = &mut mirror
                && !batch.is_empty()
            {
                self.mirror_batch(bridge, &mut **mirror, batch);
            }
            let failed = self.tell_statuses(bridge).is_err();
            if bridge.closing.is_set() && bridge.jobs.1.is_empty() {
                return;
            }
            if failed {
                pauses.pause(self, bridge);
            } else {
                pauses = Pauses::new();
            }
        }
    }

    /// Sends a batch until the back end has answered. When the broker has stopped, it is tried once more.
    fn mirror_batch(self: &Arc<Self>, bridge: &Bridge, mirror: &mut dyn Mirror, batch: Vec<Outgoing>) {
        let mut events: Vec<Event> = batch.iter().map(|outgoing| outgoing.event.clone()).collect();
        for event in &mut events {
            event.adopt(&self.instance_id, None);
        }
        // Should the back end never answer, `stop` reports these.
        let before = {
            let mut unflushed = bridge.unflushed.lock();
            let before = unflushed.len();
            unflushed.extend(events.iter().cloned());
            before
        };
        let mut pauses = Pauses::new();
        let mut tries = 0;
        let outcomes = loop {
            tries += 1;
            let last_try = bridge.closing.is_set();
            let sent = guarded(|| mirror.send(&events)).unwrap_or_else(|panic| Err(BackendError::Unavailable(panic)));
            match sent {
                Ok(outcomes) => break outcomes,
                Err(BackendError::Refused(reason)) => break vec![SendOutcome::Refused(reason); events.len()],
                Err(error @ BackendError::Unavailable(_)) => {
                    bridge.note_error(&error);
                    if last_try {
                        batch.into_iter().for_each(|outgoing| self.give_up(bridge, outgoing, &error.to_string()));
                        return;
                    }
                    pauses.pause(self, bridge);
                }
            }
        };
        bridge.unflushed.lock().truncate(before);
        let mut outcomes = outcomes.into_iter();
        for outgoing in batch {
            match outcomes.next() {
                Some(SendOutcome::Held) => self.confirm(bridge, outgoing),
                // Its answer was lost: it may have been stored by the first try.
                Some(SendOutcome::Known) if tries > 1 => self.confirm(bridge, outgoing),
                Some(SendOutcome::Known) => {
                    outgoing.release();
                    self.counts.here().duplicates.add_one();
                    let id = outgoing.event.id().clone();
                    outgoing.pending.resolve(Ok(Accepted { id, duplicate: true, deliveries: 0 }));
                    bridge.unconfirmed.fetch_sub(1, Ordering::SeqCst);
                }
                Some(SendOutcome::Conflict) => self.reject(bridge, outgoing, Refusal::IdConflict),
                Some(SendOutcome::Refused(reason)) => self.reject(bridge, outgoing, Refusal::Rejected(reason)),
                None => {
                    bridge.unflushed.lock().push(outgoing.event.clone());
                    self.give_up(bridge, outgoing, "the back end gave no outcome");
                }
            }
        }
    }

    /// The back end holds an event: now it is accepted, and dispatched to the local subscriptions.
    fn confirm(self: &Arc<Self>, bridge: &Bridge, outgoing: Outgoing) {
        bridge.mirrored.fetch_add(1, Ordering::SeqCst);
        let accepted = match outgoing.reservation {
            Some(reservation) => self.dispatch_reserved(outgoing.event, reservation),
            None => Ok(Accepted { id: outgoing.event.id().clone(), duplicate: false, deliveries: 0 }),
        };
        outgoing.pending.resolve(accepted);
        bridge.unconfirmed.fetch_sub(1, Ordering::SeqCst);
    }

    fn reject(&self, bridge: &Bridge, outgoing: Outgoing, refusal: Refusal) {
        outgoing.release();
        outgoing.pending.resolve(self.refuse(outgoing.event, refusal));
        bridge.unconfirmed.fetch_sub(1, Ordering::SeqCst);
    }

    /// Gives up what the mirror thread has left behind. Returns all that the back end has not confirmed.
    pub(crate) fn give_up_the_rest(&self, bridge: &Bridge) -> Vec<Event> {
        for job in bridge.jobs.1.try_iter() {
            if let Job::Send(outgoing) = job {
                bridge.unflushed.lock().push(outgoing.event.clone());
                self.give_up(bridge, outgoing, "the broker has stopped");
            }
        }
        std::mem::take(&mut bridge.unflushed.lock())
    }

    /// Nobody knows whether the back end holds an event.
    fn give_up(&self, bridge: &Bridge, outgoing: Outgoing, reason: &str) {
        outgoing.release();
        let event = Box::new(outgoing.event);
        outgoing.pending.resolve(Err(PublishError::Unknown { event, reason: reason.to_owned() }));
        bridge.unconfirmed.fetch_sub(1, Ordering::SeqCst);
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
