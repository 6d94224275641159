//! Whether a bridge looks for an answer, again and again, before it sleeps for it.

use std::time::Duration;

/// For so few events it is looked.
const FEW: usize = 16;
/// And so long at most.
const LIMIT: Duration = Duration::from_micros(100);

/// When the answer to few events is looked for before a thread sleeps for it, for bridges: who sleeps on an idle core is woken 30 to 50 µs late,
/// which may be as long as the server needs.
///
/// It is for at most 16 events, at most 100 µs, and as long as the last answer to so few came within 200 µs: from a server that is further away
/// it is slept for at once.
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
    /// How long the answer to so many events is looked for; not at all if it is slept for at once.
    pub fn limit(&self, events: usize) -> Option<Duration> {
        (events <= FEW && !self.is_slow).then_some(LIMIT)
    }

    /// The answer to so many events took so long from when they were sent. Who has slept for it was woken late, which is part of it.
    pub fn answered(&mut self, events: usize, took: Duration) {
        if events <= FEW {
            self.is_slow = took >= LIMIT * 2;
        }
    }
}
