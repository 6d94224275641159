//! A delivery on its way to an attempt, and what it remembers of earlier ones. Where it waits is told in `inbox.rs` and `lane.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lane_key::LaneKey;
use super::lease::HeldLease;
use crate::outcome::{AttemptError, DeadReason};
use crate::store::SharedRecord;

/// The most errors that a delivery remembers; the first and the latest are kept.
const MAX_ERRORS: usize = 20;

/// What a delivery that has not started yet takes room of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A place in the queue.
    Queue,
    /// A retry, or parked behind one.
    Waiting,
    /// Nothing: a requeued dead letter, or one that has started.
    None,
}

/// A delivery on its way to an attempt.
#[derive(Debug)]
pub(crate) struct QueuedDelivery {
    pub(crate) record: SharedRecord,
    /// Calls of the handler so far.
    pub(crate) attempts: u32,
    pub(crate) place: Place,
    /// The lane that it is the head of: when it is done, the next of its key follows.
    pub(crate) lane: Option<LaneKey>,
    pub(crate) history: Option<Box<History>>,
}

/// What a delivery that has failed before remembers, or that came in by an unusual way.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) errors: VecDeque<AttemptError>,
    /// Requeues of the dead letter that it was.
    pub(crate) requeues: u32,
    /// The lease under which a durable back end handed it over.
    pub(crate) lease: Option<Arc<HeldLease>>,
    /// Why it is a dead letter.
    pub(crate) dead: Option<DeadReason>,
}

impl QueuedDelivery {
    pub(crate) fn new(record: SharedRecord, place: Place) -> Self {
        Self { record, attempts: 0, place, lane: None, history: None }
    }

    /// The same as the head of its lane.
    pub(crate) fn heads(mut self, lane: LaneKey) -> Self {
        self.lane = Some(lane);
        self
    }

    /// The lease of a back end that handed it over, and takes it back if it is not handled.
    pub(crate) fn lease(&self) -> Option<&Arc<HeldLease>> {
        self.history.as_ref()?.lease.as_ref()
    }

    pub(crate) fn remember(&mut self, error: AttemptError) {
        let errors = &mut self.history.get_or_insert_default().errors;
        if errors.len() == MAX_ERRORS {
            errors.remove(1);
        }
        errors.push_back(error);
    }
}
