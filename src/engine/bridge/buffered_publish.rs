//! Events that are accepted before the back end holds them (`Confirm::Buffered`): dispatched here at once, and open until the mirror
//! has had its answer. So their statuses are told after the event, and the bounds of what is open hold for the buffer as well.

use std::sync::Arc;

use crate::base::system_time;
use crate::bridge::{Bridge, OnConfirmed, Unsent};
use crate::engine::Engine;
use crate::engine::admission::{Publishing, Refusal};
use crate::event::Event;
use crate::outcome::{Accepted, AttemptError, BackendError, DeadLetter, DeadReason, PublishError, RequeueError};
use crate::store::{Record, SharedRecord};
use crate::subscription::Reservation;

/// What stands for the subscription in a dead letter of the mirror.
const MIRROR: &str = "mirror";

impl Engine {
    /// Accepts an event into the buffer, and dispatches it to the local subscriptions.
    pub(crate) fn publish_buffered(
        self: &Arc<Self>,
        bridge: &Bridge,
        _publishing: &Publishing<'_>,
        event: Event,
        may_exist: bool,
        room: Reservation,
    ) -> Result<Accepted, PublishError> {
        if let Err(limit) = bridge.outbox.reserve() {
            room.release();
            return self.refuse(event, Refusal::Full(limit));
        }
        self.accept_buffered(event, room, |record| self.buffer(bridge, record, may_exist))
            .inspect_err(|_| bridge.outbox.answered())
    }

    /// Stores and dispatches an event that the mirror will settle as well, once the back end holds it: `buffer` is told of it, or
    /// that it was known.
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

    /// An event that was counted goes to the mirror; `None` if it turned out to be known.
    pub(crate) fn buffer(&self, bridge: &Bridge, record: Option<&SharedRecord>, may_exist: bool) {
        match record {
            Some(record) => {
                let event = record.event.clone();
                bridge.outbox.enqueue(Unsent { event, may_exist }, OnConfirmed::Settle(SharedRecord::clone(record)));
            }
            None => bridge.outbox.answered(),
        }
    }

    /// The back end holds an event that was accepted before, or has refused it.
    pub(super) fn settle_buffered(&self, bridge: &Bridge, record: &SharedRecord, error: Option<&str>) {
        let wall = self.clock.wall(self.clock.now());
        let progress = record.settle_one(error.is_some(), error, wall);
        // What that refused it does not know.
        if error.is_none() {
            bridge.note_end(record, progress);
        }
        self.settle_event(record, progress, Some(wall));
    }

    /// The back end refused an event for good.
    pub(super) fn dead_letter_buffered(self: &Arc<Self>, bridge: &Bridge, record: &SharedRecord, refusal: &Refusal) {
        let error = match refusal {
            Refusal::Rejected(reason) => reason.clone(),
            _ => "its id is known there with other content".to_owned(),
        };
        tracing::error!(event = %record.event.id(), error, "the back end refused an event that was accepted");
        let now = system_time(self.clock.wall(self.clock.now()));
        let mut letter = DeadLetter::new(0, record.snapshot(), MIRROR, DeadReason::MirrorRejected);
        (letter.first_failed_at, letter.dead_at, letter.attempts) = (now, now, 1);
        letter.errors = vec![AttemptError::new(1, now, error.clone())];
        self.keep_dead_letter(letter, record);
        self.settle_buffered(bridge, record, Some(&error));
    }

    /// Has the mirror try an event again that the back end refused.
    pub(crate) fn requeue_to_mirror(&self, dead_letter: u64) -> Result<(), RequeueError> {
        let not_found = || RequeueError::NotFound { id: dead_letter };
        let bridge = self.bridge.as_ref().ok_or_else(not_found)?;
        bridge.outbox.reserve().map_err(|limit| BackendError::Unavailable(limit.to_string()))?;
        let Some(entry) = self.dead_letters.take(dead_letter) else {
            bridge.outbox.answered();
            return Err(not_found());
        };
        self.reopen(&entry.record, Record::reopen_one);
        self.buffer(bridge, Some(&entry.record), true);
        Ok(())
    }
}
