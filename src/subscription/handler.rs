//! What a handler returns, and how a closure becomes a handler. Knows no queue and no thread.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::event::DecodeError;

/// The verdict of a handler on one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled.
    Done,
    /// Deliberately not handled. It counts as success, under its own total.
    Skip,
    /// It failed: try again after the retry policy's delay, if attempts are left.
    Retry(String),
    /// It failed: try again after this long (at most 7 days), if attempts are left.
    RetryAfter(Duration, String),
    /// It failed and will always fail: dead letter now.
    Permanent(String),
}

/// A failure that says what should follow, for handlers that return a `Result`.
///
/// Every other error type means "retry": use `?` freely. A payload that does not decode is permanent.
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
    /// Try again after the retry policy's delay.
    pub fn retry(message: impl fmt::Display) -> Self {
        Self(Outcome::Retry(message.to_string()))
    }

    /// Try again after `delay`, at most 7 days.
    pub fn retry_after(delay: Duration, message: impl fmt::Display) -> Self {
        Self(Outcome::RetryAfter(delay, message.to_string()))
    }

    /// Never try again: dead letter now.
    pub fn permanent(message: impl fmt::Display) -> Self {
        Self(Outcome::Permanent(message.to_string()))
    }

    /// Not for this handler: ends the delivery as skipped.
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

/// Any error can become a `HandlerError` through `?`. (For that reason it does not implement `Error` itself.)
impl<E: Error + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(outcome_of_error(&error))
    }
}

/// What a handler may return: nothing, an [`Outcome`], or a `Result` with any error that can be displayed.
pub trait IntoOutcome {
    /// The outcome that this value stands for.
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

/// An error means retry, unless its type says otherwise.
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

/// The error in a box, in the three ways in which they are usually boxed.
fn boxed_error(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    let plain = error.downcast_ref::<Box<dyn Error>>().map(|inner| &**inner);
    plain
        .or_else(|| error.downcast_ref::<Box<dyn Error + Send>>().map(|inner| &**inner as &(dyn Error + 'static)))
        .or_else(|| {
            error.downcast_ref::<Box<dyn Error + Send + Sync>>().map(|inner| &**inner as &(dyn Error + 'static))
        })
}

/// Runs user code. Its panic is caught and becomes a message; even one whose value panics when it is dropped.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let message = panic_message(&*panic);
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            // Dropping this one could go on for ever.
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
