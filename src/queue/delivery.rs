//! A delivery before its next attempt, and the history of its earlier ones. Where it waits is in the other files.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lane_key::LaneKey;
use super::lease::HeldLease;
use crate::outcome::{AttemptError, DeadReason};
use crate::store::SharedRecord;

/// How many errors a delivery keeps: the first one and the latest.
const MAX_ERRORS: usize = 20;

/// The place that a delivery holds until its attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// One of the places of the queue.
    Queue,
    /// One of the `max_waiting` places: a retry, or a delivery that is parked behind one.
    Waiting,
    /// No place: a requeued dead letter, or a delivery whose attempt has begun.
    None,
}

/// A delivery that waits for an attempt.
#[derive(Debug)]
pub(crate) struct QueuedDelivery {
    pub(crate) record: SharedRecord,
    /// Calls of the handler so far.
    pub(crate) attempts: u32,
    pub(crate) place: Place,
    /// The lane of which this is the head: when it is settled, the next delivery of its key follows.
    pub(crate) lane: Option<LaneKey>,
    pub(crate) history: Option<Box<History>>,
}

/// The history of a delivery that failed before, was requeued, or is leased.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) errors: VecDeque<AttemptError>,
    /// How often it was requeued as a dead letter.
    pub(crate) requeues: u32,
    /// The lease from the back end, for a delivery that came in from one.
    pub(crate) lease: Option<Arc<HeldLease>>,
    /// Why it became a dead letter.
    pub(crate) dead: Option<DeadReason>,
}

impl QueuedDelivery {
    pub(crate) fn new(record: SharedRecord, place: Place) -> Self {
        Self { record, attempts: 0, place, lane: None, history: None }
    }

    /// The same delivery as the head of `lane`.
    pub(crate) fn heads(mut self, lane: LaneKey) -> Self {
        self.lane = Some(lane);
        self
    }

    /// The lease from the back end, which is released if the delivery is not handled.
    pub(crate) fn lease(&self) -> Option<&Arc<HeldLease>> {
        self.history.as_ref()?.lease.as_ref()
    }

    /// Adds the error of an attempt. Beyond [`MAX_ERRORS`], the second oldest is dropped.
    pub(crate) fn remember(&mut self, error: AttemptError) {
        let errors = &mut self.history.get_or_insert_default().errors;
        if errors.len() == MAX_ERRORS {
            errors.remove(1);
        }
        errors.push_back(error);
    }
}
