//! The pauses between attempts to connect to a back end, shared by all connections of a provider.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::BackendError;

/// The first and the longest pause between two attempts to connect, before jitter.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Exponential backoff between attempts to connect, for bridges.
///
/// The pauses double from 50 ms to 1 s, each reduced by up to half at random. All connections of a provider share one
/// `Backoff`: five connections then try an unreachable server as rarely as one does, and the first success resets it
/// for all.
///
/// ```
/// use eventbroker::provider::Backoff;
///
/// let backoff = Backoff::default();
/// let failed = backoff.attempt(|| Err::<(), _>("no route".to_owned())).unwrap_err();
/// // The pause has not passed: the closure is not called, and the last error is returned.
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
    /// The longest time to wait for a server's answer when connecting: 1.5 s.
    ///
    /// An attempt that begins just before a network returns may never get an answer: its packets have left by another
    /// interface. This limit and the longest pause end before the 3 s within which a bridge recovers. Three round trips
    /// and the repeat of a lost SYN after 1 s fit in.
    pub const CONNECT_LIMIT: Duration = Duration::from_millis(1_500);

    /// Calls `connect`, or returns the last error if its pause has not passed.
    ///
    /// Blocks as long as `connect` does, and holds no lock meanwhile. Never sleeps.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] with the message of this attempt, or of the last one if `connect` was not called.
    pub fn attempt<T>(&self, connect: impl FnOnce() -> Result<T, String>) -> Result<T, BackendError> {
        {
            let mut failures = self.0.lock();
            if failures.not_before.is_some_and(|time| Instant::now() < time) {
                return Err(BackendError::Unavailable(failures.last_error.clone()));
            }
            if failures.count > 0 {
                // While this thread connects, the other connections do not try as well.
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

/// Doubles with each failure. Jitter (50 to 100 % of that) keeps processes from reconnecting all at once.
fn pause_after(failures: u32) -> Duration {
    let longest = (SHORTEST_PAUSE * (1 << failures.min(5))).min(LONGEST_PAUSE);
    let random = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
    longest.mul_f64(0.5 + random / 2.0)
}
