//! The mirror thread: sends accepted events and status changes to the back end, in batches, until it has answered.

use std::sync::Arc;
use std::time::Duration;

use super::pauses::Pauses;
use crate::bridge::{Bridge, Confirmation, OnConfirmed, Outgoing, Unsent};
use crate::engine::Engine;
use crate::engine::admission::{Publishing, Refusal};
use crate::event::Event;
use crate::outcome::{Accepted, BackendError, FullLimit, PublishError};
use crate::provider::{Mirror, SendOutcome};
use crate::subscription::{Reservation, become_worker, guarded};

/// So few publishers are waited for after they were let go: more are busy with each other for longer than they would save.
const FEW: usize = 16;
/// And so long at most.
const GATHERING: Duration = Duration::from_micros(50);
/// When they have not come in time, they are not waited for in so many batches.
const ALONE: u32 = 16;

/// Outcomes that are seen to while the back end works on the next batch, if there is one.
type Answered = Vec<(Outgoing, Option<SendOutcome>, bool)>;

impl Engine {
    /// Hands an event to the mirror thread, with the room that is reserved for it here.
    pub(super) fn send_out(
        &self,
        bridge: &Bridge,
        _publishing: &Publishing<'_>,
        unsent: Unsent,
        reservation: Option<Reservation>,
        confirmation: &Arc<Confirmation>,
    ) -> Result<(), PublishError> {
        if let Err(limit) = bridge.outbox.reserve() {
            release(reservation.as_ref());
            return self.refuse(unsent.event, Refusal::Full(limit));
        }
        bridge.outbox.enqueue(unsent, OnConfirmed::Answer { reservation, confirmation: Arc::clone(confirmation) });
        Ok(())
    }

    pub(super) fn run_mirror(self: &Arc<Self>, mut mirror: Option<Box<dyn Mirror>>) {
        become_worker();
        let Some(bridge) = &self.bridge else { return };
        let mut pauses = Pauses::new();
        let (mut answered, mut last, mut alone) = (Answered::new(), 0, 0_u32);
        loop {
            bridge.outbox.fill_batch(&self.instance.id);
            // Publishers that are let go come back one after the other. Those who wait already go with them: two groups that take turns
            // would need twice the round trips.
            let expected = last + bridge.outbox.batch_len();
            let is_worth_it = (1..=FEW).contains(&last) && expected <= FEW && alone == 0;
            alone = alone.saturating_sub(1);
            if is_worth_it || !bridge.outbox.has_batch() {
                self.follow_up(bridge, &mut answered);
            }
            if is_worth_it && !bridge.outbox.gather(&self.instance.id, expected, GATHERING) {
                alone = ALONE;
            }
            // With statuses left over from a failure there is something to do anyway.
            if !bridge.outbox.has_batch() && !bridge.closing.is_set() && !bridge.outbox.has_statuses() {
                bridge.outbox.wait_and_fill(&self.instance.id);
            }
            last = 0;
            match &mut mirror {
                Some(mirror) if bridge.outbox.has_batch() => {
                    answered = self.mirror_batch(bridge, &mut **mirror, answered);
                    last = answered.iter().filter(|(outgoing, ..)| outgoing.on_confirmed.is_waited_for()).count();
                }
                _ => {}
            }
            let failed = self.report_statuses(bridge).is_err();
            if bridge.closing.is_set() && bridge.outbox.is_drained() && answered.is_empty() {
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
    fn mirror_batch(self: &Arc<Self>, bridge: &Bridge, mirror: &mut dyn Mirror, mut before: Answered) -> Answered {
        // Should the back end never answer, `stop` reports these events.
        let (batch, events) = bridge.outbox.begin_sending();
        let mut pauses = Pauses::new();
        let mut tries = 0;
        let outcomes = loop {
            tries += 1;
            let last_try = bridge.closing.is_set();
            let mut meanwhile = || {
                self.follow_up(bridge, &mut before);
                bridge.outbox.fill_batch(&self.instance.id);
            };
            let sent = guarded(|| mirror.send(&events, &mut meanwhile));
            self.follow_up(bridge, &mut before);
            match sent.unwrap_or_else(|panic| Err(BackendError::Unavailable(panic))) {
                Ok(outcomes) => break outcomes,
                Err(error @ BackendError::Unavailable(_)) => {
                    bridge.record_error(&error);
                    if last_try {
                        bridge.outbox.sent();
                        bridge.outbox.add_unflushed(events.iter().cloned());
                        batch.into_iter().for_each(|outgoing| self.give_up(bridge, outgoing, &error.to_string()));
                        bridge.outbox.open_gates();
                        return Answered::new();
                    }
                    pauses.pause(self, bridge);
                }
                Err(BackendError::Refused(reason)) => break vec![SendOutcome::Refused(reason); events.len()],
                Err(error) => break vec![SendOutcome::Refused(error.to_string()); events.len()],
            }
        };
        bridge.outbox.sent();
        let mut outcomes = outcomes.into_iter();
        batch.into_iter().map(|outgoing| (outgoing, outcomes.next(), tries > 1)).collect()
    }

    /// What follows from outcomes.
    fn follow_up(self: &Arc<Self>, bridge: &Bridge, outcomes: &mut Answered) {
        for (outgoing, outcome, tried_before) in outcomes.drain(..) {
            match outcome {
                Some(SendOutcome::Held) => self.confirm(bridge, outgoing),
                // Its answer was lost: it may have been stored by the first try.
                Some(SendOutcome::Known) if tried_before => self.confirm(bridge, outgoing),
                Some(SendOutcome::Known) => self.confirm_known(bridge, outgoing),
                Some(SendOutcome::Conflict) => self.reject(bridge, outgoing, Refusal::IdConflict),
                Some(SendOutcome::Full { max_backlog: max }) => {
                    self.reject(bridge, outgoing, Refusal::Full(FullLimit::Backlog { max }));
                }
                Some(SendOutcome::Refused(reason)) => self.reject(bridge, outgoing, Refusal::Rejected(reason)),
                None => {
                    bridge.outbox.add_unflushed([outgoing.event.clone()]);
                    self.give_up(bridge, outgoing, "the back end gave no outcome");
                }
            }
        }
        bridge.outbox.open_gates();
    }

    /// The back end holds an event: now it is accepted, and dispatched to the local subscriptions.
    fn confirm(self: &Arc<Self>, bridge: &Bridge, outgoing: Outgoing) {
        bridge.outbox.count_mirrored();
        let Outgoing { event, on_confirmed, .. } = outgoing;
        match on_confirmed {
            OnConfirmed::Answer { reservation: Some(reservation), confirmation } => {
                confirmation.resolve(self.accept_confirmed(event, reservation));
            }
            OnConfirmed::Answer { reservation: None, confirmation } => {
                confirmation.resolve(Ok(Accepted { id: event.id().clone(), duplicate: false, deliveries: 0 }));
            }
            OnConfirmed::Settle(record) => self.settle_buffered(bridge, &record, None),
        }
        bridge.outbox.answered();
    }

    /// The back end has held the event before it was published.
    fn confirm_known(&self, bridge: &Bridge, outgoing: Outgoing) {
        self.telemetry.counters.here().duplicates.add_one();
        let Outgoing { event, on_confirmed, .. } = outgoing;
        match on_confirmed {
            OnConfirmed::Answer { reservation, confirmation } => {
                release(reservation.as_ref());
                confirmation.resolve(Ok(Accepted { id: event.id().clone(), duplicate: true, deliveries: 0 }));
            }
            OnConfirmed::Settle(record) => self.settle_buffered(bridge, &record, None),
        }
        bridge.outbox.answered();
    }

    fn reject(self: &Arc<Self>, bridge: &Bridge, outgoing: Outgoing, refusal: Refusal) {
        let Outgoing { event, on_confirmed, .. } = outgoing;
        match on_confirmed {
            OnConfirmed::Answer { reservation, confirmation } => {
                release(reservation.as_ref());
                confirmation.resolve(self.refuse(event, refusal));
            }
            OnConfirmed::Settle(record) => self.dead_letter_buffered(bridge, &record, &refusal),
        }
        bridge.outbox.answered();
    }

    /// Gives up what the mirror thread has left behind. Returns all events that the back end has not confirmed.
    pub(crate) fn abandon_unsent(&self, bridge: &Bridge) -> Vec<Event> {
        for outgoing in bridge.outbox.take_unsent() {
            bridge.outbox.add_unflushed([outgoing.event.clone()]);
            self.give_up(bridge, outgoing, "the broker has stopped");
        }
        bridge.outbox.open_gates();
        bridge.outbox.take_unflushed()
    }

    /// Nobody knows whether the back end holds an event. One that was accepted before stays open.
    fn give_up(&self, bridge: &Bridge, outgoing: Outgoing, reason: &str) {
        if let OnConfirmed::Answer { reservation, confirmation } = outgoing.on_confirmed {
            release(reservation.as_ref());
            let event = Box::new(outgoing.event);
            confirmation.resolve(Err(PublishError::Unknown { event, reason: reason.to_owned() }));
        }
        bridge.outbox.answered();
    }

    /// Reports statuses to the back end's store until it knows all. Those of a failed call stay for the next time.
    fn report_statuses(&self, bridge: &Bridge) -> Result<(), BackendError> {
        let Some(store) = &bridge.store else { return Ok(()) };
        loop {
            let changes = bridge.outbox.take_statuses();
            if changes.is_empty() {
                return Ok(());
            }
            let reported = guarded(|| store.update_statuses(&changes))
                .unwrap_or_else(|panic| Err(BackendError::Unavailable(panic)));
            let mut done = changes.len();
            if let Err(error) = &reported {
                bridge.record_error(error);
                // A refusal is final.
                if matches!(error, BackendError::Unavailable(_)) {
                    done -= bridge.outbox.put_statuses_back(changes);
                }
            }
            bridge.outbox.statuses_reported(done);
            self.lifecycle.event_settled();
            if let Err(error @ BackendError::Unavailable(_)) = reported {
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
