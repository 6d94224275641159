//! The receipt of an asynchronous publish, and the gates at which publishers wait for the back end's answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::event::{Event, EventId};
use crate::outcome::{Accepted, PublishError};

/// The outcome of a [`publish_async`](crate::Broker::publish_async), to wait for.
///
/// Dropping a receipt neither withdraws the event nor waits.
#[must_use = "only the receipt shows whether the event was accepted"]
pub struct Receipt(ReceiptState);

enum ReceiptState {
    Known(Box<Accepted>),
    Pending(Arc<Confirmation>, Box<Event>),
}

type PublishOutcome = Result<Accepted, PublishError>;

/// An outcome that a bridge thread will resolve.
#[derive(Debug)]
pub(crate) struct Confirmation {
    outcome: Mutex<Option<PublishOutcome>>,
    gate: Arc<ConfirmationGate>,
}

/// A gate for publishers whose outcomes are probably resolved together. To wake one thread costs a system call; the
/// standard library's condition variable wakes any number with one call.
#[derive(Debug, Default)]
pub(crate) struct ConfirmationGate {
    /// An outcome was resolved since the gate was opened last.
    is_due: AtomicBool,
    lock: Lock<()>,
    opened: Condvar,
}

impl ConfirmationGate {
    /// Wakes the waiting publishers, if an outcome was resolved since the last time.
    pub(crate) fn open_if_due(&self) {
        if self.is_due.swap(false, Ordering::SeqCst) {
            // A publisher checks its outcome under this lock: one that checked before it was resolved waits by now.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.opened.notify_all();
        }
    }

    /// Waits until `check` returns a value; `None` if the deadline passes first.
    fn wait<T>(&self, deadline: Option<Instant>, check: impl Fn() -> Option<T>) -> Option<T> {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = check() {
                return Some(value);
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

    /// Sets the outcome. The publisher that waits for it wakes when the gate is opened.
    pub(crate) fn resolve(&self, outcome: PublishOutcome) {
        *self.outcome.lock() = Some(outcome);
        self.gate.is_due.store(true, Ordering::SeqCst);
    }
}

impl Receipt {
    pub(crate) fn known(accepted: Accepted) -> Self {
        Self(ReceiptState::Known(Box::new(accepted)))
    }

    pub(crate) fn pending(confirmation: Arc<Confirmation>, event: Event) -> Self {
        Self(ReceiptState::Pending(confirmation, Box::new(event)))
    }

    /// The id of the published event. Never blocks.
    pub fn id(&self) -> &EventId {
        match &self.0 {
            ReceiptState::Known(accepted) => &accepted.id,
            ReceiptState::Pending(_, event) => event.id(),
        }
    }

    /// Waits for the outcome of the publish.
    ///
    /// Blocks until the back end has answered, at most for `timeout`. With the memory provider, and with
    /// [`Confirm::Buffered`](crate::Confirm::Buffered), the outcome is known at once.
    ///
    /// # Errors
    /// [`PublishError::Unknown`] without an answer in time, or before the broker stopped: the event may be stored or
    /// not. [`PublishError::Rejected`], [`PublishError::Full`] or [`PublishError::IdConflict`] if it was refused.
    pub fn wait(&self, timeout: Duration) -> Result<Accepted, PublishError> {
        let (confirmation, event) = match &self.0 {
            ReceiptState::Known(accepted) => return Ok((**accepted).clone()),
            ReceiptState::Pending(confirmation, event) => (confirmation, event),
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
