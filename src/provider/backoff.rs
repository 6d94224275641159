//! When a back end that can't be reached is tried again.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::BackendError;

/// The first and the longest pause between two tries to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Growing pauses between tries to connect, for bridges. All connections of a provider share one, so that a server that is away is asked as
/// seldom by five of them as by one, and the others learn from the one that succeeds.
///
/// The pauses grow from 50 ms to 1 s, with jitter.
///
/// ```
/// use eventbroker::provider::Backoff;
///
/// let backoff = Backoff::default();
/// let failed = backoff.attempt(|| Err::<(), _>("no route".to_owned())).unwrap_err();
/// // It is too early for another try: nobody is asked.
/// assert_eq!(backoff.attempt(|| Ok::<_, String>(unreachable!())), Err::<(), _>(failed));
/// ```
#[derive(Debug, Default)]
pub struct Backoff(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    not_before: Option<Instant>,
    last_error: String,
}

impl Backoff {
    /// Connects, or says what the last try has said if it is too early for another one. `connect` tells its failure in words, and
    /// decides how long this blocks.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] with these words.
    pub fn attempt<T>(&self, connect: impl FnOnce() -> Result<T, String>) -> Result<T, BackendError> {
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
                failures.last_error.clone_from(&error);
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
