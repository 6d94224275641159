//! The receipt of a publish that was not waited for.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::PublishError;
use crate::event::{Event, EventId};
use crate::verdict::Accepted;

/// Tells what became of a [`publish_async`](crate::Broker::publish_async). Dropping it changes nothing.
#[must_use = "a receipt tells whether the event was accepted"]
pub struct Receipt(State);

enum State {
    Known(Box<Accepted>),
    Pending(Arc<Pending>, Box<Event>),
}

/// An outcome that a bridge thread will know.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    outcome: Mutex<Option<Result<Accepted, PublishError>>>,
    known: Condvar,
}

impl Pending {
    pub(crate) fn resolve(&self, outcome: Result<Accepted, PublishError>) {
        *self.outcome.lock() = Some(outcome);
        self.known.notify_all();
    }
}

impl Receipt {
    pub(crate) fn known(accepted: Accepted) -> Self {
        Self(State::Known(Box::new(accepted)))
    }

    pub(crate) fn pending(pending: Arc<Pending>, event: Event) -> Self {
        Self(State::Pending(pending, Box::new(event)))
    }

    /// The event's id.
    pub fn id(&self) -> &EventId {
        match &self.0 {
            State::Known(accepted) => &accepted.id,
            State::Pending(_, event) => event.id(),
        }
    }

    /// The outcome. Blocks until the back end has confirmed the event, at most `timeout`; with the memory provider it is
    /// known at once.
    ///
    /// # Errors
    /// [`PublishError::Rejected`] if the back end refused the event, [`PublishError::Unknown`] if it did not answer in time.
    pub fn wait(&self, timeout: Duration) -> Result<Accepted, PublishError> {
        let (pending, event) = match &self.0 {
            State::Known(accepted) => return Ok((**accepted).clone()),
            State::Pending(pending, event) => (pending, event),
        };
        let deadline = Instant::now().checked_add(timeout);
        let mut outcome = pending.outcome.lock();
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            let timed_out = match deadline {
                Some(deadline) => pending.known.wait_until(&mut outcome, deadline).timed_out(),
                None => {
                    pending.known.wait(&mut outcome);
                    false
                }
            };
            if timed_out && outcome.is_none() {
                let reason = format!("no answer within {timeout:?}");
                return Err(PublishError::Unknown { event: event.clone(), reason });
            }
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("id", self.id()).finish_non_exhaustive()
    }
}
