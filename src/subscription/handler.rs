//! The results of handlers, and how errors and panics become outcomes.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::event::DecodeError;

/// The outcome of one attempt, as the handler reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled.
    Done,
    /// Deliberately not handled. Counts as success, in a total of its own.
    Skip,
    /// Failed: retry after the retry policy's delay, if attempts are left.
    Retry(String),
    /// Failed: retry after this delay, at most 7 days, if attempts are left.
    RetryAfter(Duration, String),
    /// Failed, and every retry would fail: make it a dead letter now.
    Permanent(String),
}

/// An error that chooses the outcome, for handlers that return a `Result`.
///
/// Any other error type means a retry, so `?` can be used freely. A payload that does not decode is permanent.
///
/// ```
/// use eventbroker::{Delivery, HandlerError};
/// use std::time::Duration;
///
/// fn handler(delivery: &Delivery) -> Result<(), HandlerError> {
///     let order: u64 = delivery.event().payload_as()?; // permanent if it is no number
///     if order == 0 {
///         return Err(HandlerError::permanent("order 0 does not exist"));
///     }
///     Err(HandlerError::retry_after(Duration::from_secs(5), "the shop is closed"))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError(Outcome);

impl HandlerError {
    /// Retry after the retry policy's delay.
    pub fn retry(message: impl fmt::Display) -> Self {
        Self(Outcome::Retry(message.to_string()))
    }

    /// Retry after `delay`, at most 7 days.
    pub fn retry_after(delay: Duration, message: impl fmt::Display) -> Self {
        Self(Outcome::RetryAfter(delay, message.to_string()))
    }

    /// No retry: make the delivery a dead letter now.
    pub fn permanent(message: impl fmt::Display) -> Self {
        Self(Outcome::Permanent(message.to_string()))
    }

    /// No failure: end the delivery as skipped.
    pub fn skip() -> Self {
        Self(Outcome::Skip)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Outcome::Done => f.write_str("done"),
            Outcome::Skip => f.write_str("skipped"),
            Outcome::Retry(message) | Outcome::RetryAfter(_, message) | Outcome::Permanent(message) => {
                f.write_str(message)
            }
        }
    }
}

/// Any error becomes a `HandlerError` through `?`. (For that reason `HandlerError` does not implement `Error` itself.)
impl<E: Error + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(outcome_of_error(&error))
    }
}

/// A result of a handler: `()`, an [`Outcome`], or a `Result`.
///
/// The error of a `Result` can be of any type that can be displayed.
pub trait IntoOutcome {
    /// Converts the result into an outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<T: IntoOutcome, E: fmt::Display + 'static> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(error) => outcome_of_error(&error),
        }
    }
}

/// An error means a retry, unless it is a [`HandlerError`] or a [`DecodeError`].
fn outcome_of_error<E: fmt::Display + 'static>(error: &E) -> Outcome {
    let any: &dyn Any = error;
    if let Some(HandlerError(outcome)) = any.downcast_ref() {
        return outcome.clone();
    }
    if any.is::<DecodeError>() || boxed_error(any).is_some_and(|inner| inner.is::<DecodeError>()) {
        return Outcome::Permanent(error.to_string());
    }
    Outcome::Retry(error.to_string())
}

/// The error inside a box of one of the three usual types.
fn boxed_error(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    let plain = error.downcast_ref::<Box<dyn Error>>().map(|inner| &**inner);
    plain
        .or_else(|| error.downcast_ref::<Box<dyn Error + Send>>().map(|inner| &**inner as &(dyn Error + 'static)))
        .or_else(|| {
            error.downcast_ref::<Box<dyn Error + Send + Sync>>().map(|inner| &**inner as &(dyn Error + 'static))
        })
}

/// Runs user code. A panic is caught and becomes a message, also if its payload panics when it is dropped.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let message = panic_message(&*panic);
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            // Dropping this payload could panic again, without end.
            std::mem::forget(another);
        }
        message
    })
}

/// The message of a caught panic.
fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)");
    format!("panicked: {text}")
}
