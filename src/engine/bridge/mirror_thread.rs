//! The mirror thread: sends events and statuses in batches, each until the back end has answered, and enqueues the
//! confirmed events for the local subscriptions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::pauses::Pauses;
use crate::bridge::{Bridge, OnConfirmed, Outgoing};
use crate::engine::Engine;
use crate::engine::admission::Refusal;
use crate::event::Event;
use crate::outcome::{Accepted, BackendError, FullLimit, PublishError};
use crate::provider::{Mirror, SendOutcome};
use crate::subscription::{Reservation, become_worker, guarded};

/// A batch gathers at most this many just answered publishers: more contend for longer than a round trip saves.
const MAX_GATHERED: usize = 16;
/// How long a batch gathers at most.
const GATHER_LIMIT: Duration = Duration::from_micros(50);
/// The number of batches that do not gather after one whose publishers did not come in time.
const SKIPPED_BATCHES: u32 = 16;

/// Answered events, their outcomes, and whether they were sent repeatedly. Processed while the next batch is sent.
type Answered = Vec<(Outgoing, Option<SendOutcome>, bool)>;

impl Engine {
    pub(super) fn run_mirror(self: &Arc<Self>, mut mirror: Option<Box<dyn Mirror>>) {
        become_worker();
        let Some(bridge) = &self.bridge else { return };
        let mut pauses = Pauses::new();
        let (mut answered, mut waiting, mut to_skip) = (Answered::new(), 0, 0_u32);
        loop {
            bridge.outbox.fill_batch(&self.instance.id);
            // The `waiting` publishers of the last batch publish again one after the other once they are answered. They
            // share the next batch with those ready now: two alternating groups would need twice the round trips.
            let expected = waiting + bridge.outbox.batch_len();
            let gathers = (1..=MAX_GATHERED).contains(&waiting) && expected <= MAX_GATHERED && to_skip == 0;
            to_skip = to_skip.saturating_sub(1);
            if gathers || !bridge.outbox.has_batch() {
                self.process_outcomes(bridge, &mut answered);
            }
            if gathers && !bridge.outbox.gather(&self.instance.id, expected, GATHER_LIMIT) {
                to_skip = SKIPPED_BATCHES;
            }
            // Statuses whose report has failed are retried without waiting for a job.
            if !bridge.outbox.has_batch() && !bridge.closing.is_set() && !bridge.outbox.has_statuses() {
                bridge.outbox.wait_and_fill(&self.instance.id);
            }
            waiting = 0;
            match &mut mirror {
                Some(mirror) if bridge.outbox.has_batch() => {
                    answered = self.mirror_batch(bridge, &mut **mirror, answered);
                    waiting = answered.iter().filter(|(outgoing, ..)| outgoing.on_confirmed.is_waited_for()).count();
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

    /// Sends the next batch until the back end has answered; once the bridge is closing, one try is the last. Meanwhile
    /// processes the outcomes of the `previous` batch and fills the next one. Returns the outcomes of this batch.
    fn mirror_batch(self: &Arc<Self>, bridge: &Bridge, mirror: &mut dyn Mirror, mut previous: Answered) -> Answered {
        // If the back end never answers, `stop` reports these events as unflushed.
        let (batch, events) = bridge.outbox.begin_sending();
        let mut pauses = Pauses::new();
        let mut tries = 0;
        let outcomes = loop {
            tries += 1;
            let last_try = bridge.closing.is_set();
            let mut meanwhile = || {
                self.process_outcomes(bridge, &mut previous);
                bridge.outbox.fill_batch(&self.instance.id);
            };
            let sent = guarded(|| mirror.send(&events, &mut meanwhile));
            self.process_outcomes(bridge, &mut previous);
            match sent.unwrap_or_else(|panic| Err(BackendError::Unavailable(panic))) {
                Ok(outcomes) => break outcomes,
                Err(error @ BackendError::Unavailable(_)) => {
                    bridge.record_error(&error);
                    if last_try {
                        bridge.outbox.end_sending();
                        bridge.outbox.add_unflushed(events.iter().cloned());
                        batch.into_iter().for_each(|outgoing| self.give_up(bridge, outgoing, &error.to_string()));
                        bridge.outbox.open_gates();
                        return Answered::new();
                    }
                    // The failed call may have stored some of them.
                    events.iter().for_each(Event::end_sole_copy);
                    pauses.pause(self, bridge);
                }
                Err(BackendError::Refused(reason)) => break vec![SendOutcome::Refused(reason); events.len()],
                Err(error) => break vec![SendOutcome::Refused(error.to_string()); events.len()],
            }
        };
        bridge.outbox.end_sending();
        let mut outcomes = outcomes.into_iter();
        batch.into_iter().map(|outgoing| (outgoing, outcomes.next(), tries > 1)).collect()
    }

    /// Confirms, rejects or gives up answered events, and wakes their publishers.
    fn process_outcomes(self: &Arc<Self>, bridge: &Bridge, outcomes: &mut Answered) {
        for (outgoing, outcome, tried_before) in outcomes.drain(..) {
            match outcome {
                Some(SendOutcome::Held) => self.confirm(bridge, outgoing),
                // Probably stored by an earlier try of this batch, whose answer was lost.
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

    /// The back end holds the event: accepts it, and enqueues it for the local subscriptions.
    fn confirm(self: &Arc<Self>, bridge: &Bridge, outgoing: Outgoing) {
        bridge.outbox.mirrored.fetch_add(1, Ordering::SeqCst);
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
        bridge.outbox.release();
    }

    /// Stores and enqueues an event that the back end holds.
    fn accept_confirmed(self: &Arc<Self>, event: Event, reservation: Reservation) -> Result<Accepted, PublishError> {
        let Reservation { targets, unreserved } = reservation;
        self.store_published(event, &targets, 0, &unreserved, None)
            .map(|stored| self.accept(stored, &targets, &unreserved))
    }

    /// The back end held the event before this publish: answers with a duplicate.
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
        bridge.outbox.release();
    }

    /// The back end has refused the event: returns it to its publisher, or makes a dead letter of it.
    fn reject(self: &Arc<Self>, bridge: &Bridge, outgoing: Outgoing, refusal: Refusal) {
        let Outgoing { event, on_confirmed, .. } = outgoing;
        match on_confirmed {
            OnConfirmed::Answer { reservation, confirmation } => {
                release(reservation.as_ref());
                confirmation.resolve(self.refuse(event, refusal));
            }
            OnConfirmed::Settle(record) => self.dead_letter_buffered(bridge, &record, &refusal),
        }
        bridge.outbox.release();
    }

    /// Gives up the events that the mirror thread has not sent. Returns all events that the back end has not confirmed.
    pub(crate) fn abandon_unsent(&self, bridge: &Bridge) -> Vec<Event> {
        for outgoing in bridge.outbox.take_unsent() {
            bridge.outbox.add_unflushed([outgoing.event.clone()]);
            self.give_up(bridge, outgoing, "the broker has stopped");
        }
        bridge.outbox.open_gates();
        bridge.outbox.take_unflushed()
    }

    /// Gives up an event whose outcome is unknown. A buffered event, which was accepted before, stays open.
    fn give_up(&self, bridge: &Bridge, outgoing: Outgoing, reason: &str) {
        if let OnConfirmed::Answer { reservation, confirmation } = outgoing.on_confirmed {
            release(reservation.as_ref());
            let event = Box::new(outgoing.event);
            confirmation.resolve(Err(PublishError::Unknown { event, reason: reason.to_owned() }));
        }
        bridge.outbox.release();
    }

    /// Reports all statuses to the back end's store. The statuses of a failed call stay in the outbox.
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
                // Refused statuses are dropped.
                if matches!(error, BackendError::Unavailable(_)) {
                    done -= bridge.outbox.put_statuses_back(changes);
                }
            }
            bridge.outbox.outstanding.fetch_sub(done as u64, Ordering::SeqCst);
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
