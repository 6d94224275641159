//! Time. The only file that reads a clock.
//!
//! Delays, deadlines and leases count monotonic nanoseconds since the clock was made, so a wall clock that jumps
//! moves none of them. Wall time is data: it is derived from the same reading through an anchor that the timer
//! thread renews, which makes one reading serve both. A [`ManualClock`] stands in for it in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, MutexGuard};

/// How long a wait under a manual clock sleeps before it looks at the clock again.
const MANUAL_POLL: Duration = Duration::from_millis(1);

/// The wall clock, in nanoseconds since the Unix epoch (0 before it).
pub(crate) fn wall_nanos() -> u64 {
    wall_nanos_of(SystemTime::now())
}

/// A wall time of the standard library in nanoseconds since the Unix epoch (0 before it).
pub(crate) fn wall_nanos_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, nanos)
}

/// A wall time in nanoseconds, as the standard library's type.
pub(crate) fn system_time(wall: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(wall)
}

/// A duration in nanoseconds; beyond 584 years it stays there.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A clock for tests: it stands still until it is moved.
///
/// Give it to [`BrokerBuilder::manual_clock`](crate::BrokerBuilder::manual_clock). Retries, clean-up, the growth of
/// the worker pool and every deadline of that broker then follow [`advance`](Self::advance); threads notice within
/// about a millisecond. Cloning gives another handle to the same clock.
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
    /// A clock that stands at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(nanos(by), Ordering::SeqCst);
    }

    /// How far it was moved since it was made.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::SeqCst))
    }
}

/// The time of one broker.
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

    /// Monotonic nanoseconds since this clock was made.
    pub(crate) fn now(&self) -> u64 {
        match &self.source {
            TimeSource::System(origin) => nanos(origin.elapsed()),
            TimeSource::Manual(clock) => clock.now.load(Ordering::SeqCst),
        }
    }

    /// The wall time that belongs to a reading of [`now`](Self::now).
    pub(crate) fn wall(&self, now: u64) -> u64 {
        self.anchor.load(Ordering::Relaxed).saturating_add(now)
    }

    /// Follows a wall clock that was set. A manual clock keeps its anchor.
    pub(crate) fn resync(&self) {
        if let TimeSource::System(_) = self.source {
            self.anchor.store(wall_nanos().saturating_sub(self.now()), Ordering::Relaxed);
        }
    }

    /// The moment `after` from now; one that can't be represented never comes.
    pub(crate) fn deadline(&self, after: Duration) -> u64 {
        self.now().saturating_add(nanos(after))
    }

    /// How long a thread may sleep to be awake at `deadline`; a manual clock has to be looked at again and again.
    pub(crate) fn sleep_until(&self, deadline: u64) -> Duration {
        let left = Duration::from_nanos(deadline.saturating_sub(self.now()));
        match self.source {
            TimeSource::System(_) => left,
            TimeSource::Manual(_) => left.min(MANUAL_POLL),
        }
    }

    /// Waits for a notification, at most until `deadline`. False when the time is up; spurious wake-ups are possible.
    pub(crate) fn wait<T>(&self, signal: &Condvar, guard: &mut MutexGuard<'_, T>, deadline: u64) -> bool {
        let left = self.sleep_until(deadline);
        if left.is_zero() {
            return false;
        }
        signal.wait_for(guard, left);
        true
    }
}
