//! Events that are accepted before the back end holds them (`Confirm::Buffered`). They are enqueued here at once, and
//! stay open until the back end has answered. So the event is sent before its final status, and `max_in_flight` bounds
//! the buffer, too.

use std::sync::Arc;

use crate::base::system_time;
use crate::bridge::{Bridge, OnConfirmed, Unsent};
use crate::engine::Engine;
use crate::engine::admission::{Publishing, Refusal};
use crate::event::Event;
use crate::outcome::{Accepted, AttemptError, BackendError, DeadLetter, DeadReason, PublishError, RequeueError};
use crate::store::{Record, SharedRecord};
use crate::subscription::Reservation;

/// The name in a dead letter of the mirror, in place of a subscription's.
const MIRROR: &str = "mirror";

impl Engine {
    /// Accepts an event into the buffer and enqueues it for the local subscriptions.
    pub(crate) fn publish_buffered(
        self: &Arc<Self>,
        bridge: &Bridge,
        _publishing: &Publishing<'_>,
        event: Event,
        may_exist: bool,
        reservation: Reservation,
    ) -> Result<Accepted, PublishError> {
        if let Err(limit) = bridge.outbox.reserve() {
            reservation.release();
            return self.refuse(event, Refusal::Full(limit));
        }
        self.accept_buffered(event, reservation, |record| self.buffer(bridge, record, may_exist))
            .inspect_err(|_| bridge.outbox.release())
    }

    /// Stores and enqueues an event that the mirror also settles. `buffer` gets its new record; `None` if it is known.
    fn accept_buffered(
        self: &Arc<Self>,
        event: Event,
        reservation: Reservation,
        buffer: impl FnOnce(Option<&SharedRecord>),
    ) -> Result<Accepted, PublishError> {
        let Reservation { targets, unreserved } = reservation;
        let stored = self.store_published(event, &targets, 1, &unreserved, None)?;
        buffer(stored.new_record());
        Ok(self.accept(stored, &targets, &unreserved))
    }

    /// Passes a record, for which the outbox has room reserved, to the mirror thread. `None` releases the room.
    pub(crate) fn buffer(&self, bridge: &Bridge, record: Option<&SharedRecord>, may_exist: bool) {
        match record {
            Some(record) => {
                let event = record.event.clone();
                bridge.outbox.enqueue(Unsent { event, may_exist }, OnConfirmed::Settle(SharedRecord::clone(record)));
            }
            None => bridge.outbox.release(),
        }
    }

    /// Settles the mirror's part of a buffered event: the back end holds the event, or has refused it with `error`.
    pub(super) fn settle_buffered(&self, bridge: &Bridge, record: &SharedRecord, error: Option<&str>) {
        let wall = self.clock.wall(self.clock.now());
        let progress = record.settle_one(error.is_some(), error, wall);
        // The back end has no event to update if it refused this one.
        if error.is_none() {
            bridge.note_end(record, progress);
        }
        self.settle_event(record, progress, Some(wall));
    }

    /// Makes a dead letter of a buffered event that the back end refused permanently.
    pub(super) fn dead_letter_buffered(self: &Arc<Self>, bridge: &Bridge, record: &SharedRecord, refusal: &Refusal) {
        let error = match refusal {
            Refusal::Rejected(reason) => reason.clone(),
            _ => "the back end holds other content under the same id".to_owned(),
        };
        tracing::error!(event = %record.event.id(), error, "the back end refused an event that was accepted");
        let now = system_time(self.clock.wall(self.clock.now()));
        let mut letter = DeadLetter::new(0, record.snapshot(), MIRROR, DeadReason::MirrorRejected);
        (letter.first_failed_at, letter.dead_at, letter.attempts) = (now, now, 1);
        letter.errors = vec![AttemptError::new(1, now, error.clone())];
        self.keep_dead_letter(letter, record);
        self.settle_buffered(bridge, record, Some(&error));
    }

    /// Requeues a dead letter of the mirror: the event is sent to the back end again.
    pub(crate) fn requeue_to_mirror(&self, dead_letter: u64) -> Result<(), RequeueError> {
        let not_found = || RequeueError::NotFound { id: dead_letter };
        let bridge = self.bridge.as_ref().ok_or_else(not_found)?;
        bridge.outbox.reserve().map_err(|limit| BackendError::Unavailable(limit.to_string()))?;
        let Some(entry) = self.dead_letters.take(dead_letter) else {
            bridge.outbox.release();
            return Err(not_found());
        };
        self.reopen(&entry.record, Record::reopen_one);
        self.buffer(bridge, Some(&entry.record), true);
        Ok(())
    }
}
