//! `max_backlog`: whether the backlog of some subscription has reached its limit, so that publishes are refused. Each database counts
//! in its own way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, SendOutcome};
use parking_lot::Mutex;

/// The shortest time between two counts.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The time between two counts, as a multiple of the time that one takes: counting costs at most a tenth of the time.
const REST: u32 = 10;

/// Whether a subscription's backlog has reached `max_backlog`.
pub(crate) struct Backlog {
    max: u64,
    is_full: AtomicBool,
    next_check: Mutex<Instant>,
}

impl Backlog {
    pub(crate) fn new(max: u64) -> Self {
        Self { max, is_full: AtomicBool::new(false), next_check: Mutex::new(Instant::now()) }
    }

    /// Counts again if it is time. `reaches` says whether some subscription has at least this many ready deliveries.
    pub(crate) fn check(&self, reaches: impl FnOnce(i64) -> Result<bool, BackendError>) -> Result<(), BackendError> {
        let began = Instant::now();
        let mut next_check = self.next_check.lock();
        if began < *next_check {
            return Ok(());
        }
        let is_full = reaches(i64::try_from(self.max).unwrap_or(i64::MAX))?;
        *next_check = Instant::now() + CHECK_EVERY.max(began.elapsed().saturating_mul(REST));
        if !self.is_full.swap(is_full, Ordering::SeqCst) && is_full {
            tracing::warn!(
                max_backlog = self.max,
                "the backlog of a subscription has reached max_backlog: publishes are refused"
            );
        }
        Ok(())
    }

    /// The outcome of new events while a backlog is full.
    pub(crate) fn refusal(&self) -> Option<SendOutcome> {
        self.is_full.load(Ordering::SeqCst).then_some(SendOutcome::Full { max_backlog: self.max })
    }
}
