//! The receipt of a publish that was not waited for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::event::{Event, EventId};
use crate::outcome::{Accepted, PublishError};

/// Tells what became of a [`publish_async`](crate::Broker::publish_async). Dropping it changes nothing.
#[must_use = "a receipt tells whether the event was accepted"]
pub struct Receipt(State);

enum State {
    Known(Box<Accepted>),
    Pending(Arc<Confirmation>, Box<Event>),
}

type Outcome = Result<Accepted, PublishError>;

/// An outcome that a bridge thread will know.
#[derive(Debug)]
pub(crate) struct Confirmation {
    outcome: Mutex<Option<Outcome>>,
    gate: Arc<ConfirmationGate>,
}

/// Where those wait whose outcomes are probably known at the same time. To wake one thread costs a system call; the standard library's
/// condition variable wakes any number with one.
#[derive(Debug, Default)]
pub(crate) struct ConfirmationGate {
    /// Some outcome has become known since it was opened.
    is_due: AtomicBool,
    lock: Lock<()>,
    opened: Condvar,
}

impl ConfirmationGate {
    /// Wakes those who wait, if any of their outcomes has become known.
    pub(crate) fn open_if_due(&self) {
        if self.is_due.swap(false, Ordering::SeqCst) {
            // Who has not seen an outcome under the lock waits by now.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.opened.notify_all();
        }
    }

    /// Waits until `check` sees something; nothing if that was not in time.
    fn wait<T>(&self, deadline: Option<Instant>, check: impl Fn() -> Option<T>) -> Option<T> {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(seen) = check() {
                return Some(seen);
            }
            guard = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => self.opened.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Confirmation {
    pub(crate) fn new(gate: &Arc<ConfirmationGate>) -> Self {
        Self { outcome: Mutex::default(), gate: Arc::clone(gate) }
    }

    /// It is known now. Who waits for it is woken when its gate is opened.
    pub(crate) fn resolve(&self, outcome: Outcome) {
        *self.outcome.lock() = Some(outcome);
        self.gate.is_due.store(true, Ordering::SeqCst);
    }
}

impl Receipt {
    pub(crate) fn known(accepted: Accepted) -> Self {
        Self(State::Known(Box::new(accepted)))
    }

    pub(crate) fn pending(confirmation: Arc<Confirmation>, event: Event) -> Self {
        Self(State::Pending(confirmation, Box::new(event)))
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
        let (confirmation, event) = match &self.0 {
            State::Known(accepted) => return Ok((**accepted).clone()),
            State::Pending(confirmation, event) => (confirmation, event),
        };
        let deadline = Instant::now().checked_add(timeout);
        confirmation.gate.wait(deadline, || confirmation.outcome.lock().clone()).unwrap_or_else(|| {
            let reason = format!("no answer within {timeout:?}");
            Err(PublishError::Unknown { event: event.clone(), reason })
        })
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("id", self.id()).finish_non_exhaustive()
    }
}
