//! The broker's clock, monotonic and wall time. Tests replace it with a [`ManualClock`].
//!
//! Delays, deadlines and leases count monotonic nanoseconds since the clock was created, so a jump of the wall clock
//! moves none of them. Wall time is only data: it is a monotonic reading plus an anchor, which the timer thread renews.
//! One clock reading therefore yields both times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, MutexGuard};

/// Under a manual clock, a waiting thread rereads the clock this often.
const MANUAL_POLL: Duration = Duration::from_millis(1);

/// The current wall time, in nanoseconds since the Unix epoch (0 before it).
pub(crate) fn wall_nanos() -> u64 {
    wall_nanos_of(SystemTime::now())
}

/// Converts a wall time to nanoseconds since the Unix epoch (0 before it).
pub(crate) fn wall_nanos_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, nanos)
}

/// Converts nanoseconds since the Unix epoch to the standard library's type.
pub(crate) fn system_time(wall: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(wall)
}

/// Converts a duration to nanoseconds. Saturates at 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A clock for tests that advances only on request.
///
/// Pass it to [`BrokerBuilder::manual_clock`](crate::BrokerBuilder::manual_clock). Retries, clean-up, the growth of
/// the worker pool and every deadline of that broker then follow [`advance`](Self::advance). Threads notice an advance
/// within about a millisecond. A clone is another handle to the same clock.
///
/// ```
/// use eventbroker::ManualClock;
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.elapsed(), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    now: Arc<AtomicU64>,
}

impl ManualClock {
    /// Creates a clock that reads zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(nanos(by), Ordering::SeqCst);
    }

    /// Returns the sum of all advances.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::SeqCst))
    }
}

/// The clock of one broker.
#[derive(Debug)]
pub(crate) struct Clock {
    source: TimeSource,
    /// Wall time at monotonic zero.
    anchor: AtomicU64,
}

#[derive(Debug)]
enum TimeSource {
    System(Instant),
    Manual(ManualClock),
}

impl Clock {
    pub(crate) fn system() -> Self {
        Self { source: TimeSource::System(Instant::now()), anchor: AtomicU64::new(wall_nanos()) }
    }

    pub(crate) fn manual(clock: ManualClock) -> Self {
        let elapsed = nanos(clock.elapsed());
        Self { source: TimeSource::Manual(clock), anchor: AtomicU64::new(wall_nanos().saturating_sub(elapsed)) }
    }

    /// Monotonic nanoseconds since this clock was created.
    pub(crate) fn now(&self) -> u64 {
        match &self.source {
            TimeSource::System(origin) => nanos(origin.elapsed()),
            TimeSource::Manual(clock) => clock.now.load(Ordering::SeqCst),
        }
    }

    /// The wall time of a reading of [`now`](Self::now).
    pub(crate) fn wall(&self, now: u64) -> u64 {
        self.anchor.load(Ordering::Relaxed).saturating_add(now)
    }

    /// Renews the anchor, so that wall times follow a wall clock that was set. A manual clock keeps its anchor.
    pub(crate) fn resync(&self) {
        if let TimeSource::System(_) = self.source {
            self.anchor.store(wall_nanos().saturating_sub(self.now()), Ordering::Relaxed);
        }
    }

    /// The reading that is `after` from now. Saturates, so a deadline beyond 584 years never passes.
    pub(crate) fn deadline(&self, after: Duration) -> u64 {
        self.now().saturating_add(nanos(after))
    }

    /// How long a thread may sleep before `deadline`; under a manual clock at most [`MANUAL_POLL`].
    pub(crate) fn sleep_until(&self, deadline: u64) -> Duration {
        let left = Duration::from_nanos(deadline.saturating_sub(self.now()));
        match self.source {
            TimeSource::System(_) => left,
            TimeSource::Manual(_) => left.min(MANUAL_POLL),
        }
    }

    /// Waits for a notification until `deadline`. Returns false once the deadline has passed. May wake spuriously.
    pub(crate) fn wait<T>(&self, signal: &Condvar, guard: &mut MutexGuard<'_, T>, deadline: u64) -> bool {
        let left = self.sleep_until(deadline);
        if left.is_zero() {
            return false;
        }
        signal.wait_for(guard, left);
        true
    }
}
