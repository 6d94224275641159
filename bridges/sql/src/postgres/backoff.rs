//! When a server that can't be reached is tried again: all connections of a provider share their tries, so that it is asked as seldom by
//! five as by one, and learn from the one that succeeds.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;
use parking_lot::Mutex;

/// The first and the longest pause between two tries to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    not_before: Option<Instant>,
    last_error: String,
}

impl Backoff {
    /// Connects, or says what the last try has said if it is too early for another one. `connect` tells its failure in words.
    pub(super) fn attempt<T>(&self, connect: impl FnOnce() -> Result<T, String>) -> Result<T, BackendError> {
        {
            let mut failures = self.0.lock();
            if failures.not_before.is_some_and(|time| Instant::now() < time) {
                return Err(BackendError::Unavailable(failures.last_error.clone()));
            }
            if failures.count > 0 {
                // While one tries, the others wait for what comes of it.
                failures.not_before = Some(Instant::now() + pause_after(failures.count));
            }
        }
        let connected = connect();
        let mut failures = self.0.lock();
        match connected {
            Ok(connection) => {
                *failures = Failures::default();
                Ok(connection)
            }
            Err(error) => {
                failures.not_before = Some(Instant::now() + pause_after(failures.count));
                failures.count = failures.count.saturating_add(1);
                failures.last_error = error.clone();
                Err(BackendError::Unavailable(error))
            }
        }
    }
}

/// Twice as long after each failure, and anything from half of that up, so that not all come back at once.
fn pause_after(failures: u32) -> Duration {
    let longest = (SHORTEST_PAUSE * (1 << failures.min(5))).min(LONGEST_PAUSE);
    let random = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
    longest.mul_f64(0.5 + random / 2.0)
}
