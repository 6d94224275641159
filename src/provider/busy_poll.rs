//! Whether a bridge polls for an answer before its thread sleeps.

use std::time::Duration;

/// The largest batch that is polled for.
const MAX_EVENTS: usize = 16;
/// The longest poll.
const MAX_POLL: Duration = Duration::from_micros(100);

/// Decides whether to poll for the answer to a small batch, for bridges.
///
/// A thread that sleeps on an idle core wakes 30 to 50 µs late, which may be as long as a server nearby needs to
/// answer. So a bridge polls for up to 100 µs after it has sent at most 16 events. It does not poll if the last answer
/// to such a batch took 200 µs or more: the server is too far away.
///
/// ```
/// use std::time::Duration;
/// use eventbroker::provider::BusyPoll;
///
/// let mut poll = BusyPoll::default();
/// assert_eq!(poll.limit(1), Some(Duration::from_micros(100)));
/// assert_eq!(poll.limit(100), None);
/// poll.answered(1, Duration::from_millis(3));
/// assert_eq!(poll.limit(1), None);
/// poll.answered(1, Duration::from_micros(150));
/// assert!(poll.limit(1).is_some());
/// ```
#[derive(Debug, Clone, Default)]
pub struct BusyPoll {
    is_slow: bool,
}

impl BusyPoll {
    /// Returns how long to poll for the answer to a batch of this size, if at all.
    pub fn limit(&self, events: usize) -> Option<Duration> {
        (events <= MAX_EVENTS && !self.is_slow).then_some(MAX_POLL)
    }

    /// Records how long the answer to such a batch took, late wake-up included.
    pub fn answered(&mut self, events: usize, took: Duration) {
        if events <= MAX_EVENTS {
            self.is_slow = took >= MAX_POLL * 2;
        }
    }
}
