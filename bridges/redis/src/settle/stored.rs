//! The stored forms of dead letters and of deferred retries, which are JSON.

use std::time::SystemTime;

use eventbroker::dead_letter::AttemptError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The errors of a delivery's attempts: the attempt, the time and the message of each.
pub(crate) type StoredErrors = Vec<(u32, Timestamp, String)>;

/// A dead letter.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredLetter {
    #[serde(rename = "unit")]
    pub(crate) xgroup: String,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    pub(crate) errors: StoredErrors,
    pub(crate) dead_at: Timestamp,
    pub(crate) requeues: u32,
}

/// A deferred retry. Each comes from an entry of its own, so no two are equal.
#[derive(Debug, Serialize)]
pub(super) struct StoredRetry<'a> {
    pub(super) id: &'a str,
    pub(super) event: String,
    pub(super) requeues: u32,
    pub(super) attempts: u32,
    /// [`StoredErrors`] as JSON: scripts pass the text on.
    pub(super) errors: String,
    /// The stream and the entry of the delivery that failed.
    pub(super) entry: String,
}

pub(super) fn to_stored(errors: &[AttemptError]) -> StoredErrors {
    let time = |time: SystemTime| Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    errors.iter().map(|it| (it.attempt, time(it.at), it.message.clone())).collect()
}

pub(crate) fn from_stored(errors: StoredErrors) -> Vec<AttemptError> {
    errors.into_iter().map(|(attempt, at, message)| AttemptError::new(attempt, at.into(), message)).collect()
}
