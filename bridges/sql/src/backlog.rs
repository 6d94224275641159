//! `max_backlog`: whether a subscription has so much that nobody has read yet that no more is stored. How that is counted, each
//! database knows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, SendOutcome};
use parking_lot::Mutex;

/// Time between two looks, at least; and how many times as long as a look took, so that looking costs no more than a tenth.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const REST: u32 = 10;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Backlog {
    max: u64,
    is_full: AtomicBool,
    next_look: Mutex<Instant>,
}

impl Backlog {
    pub(crate) fn new(max: u64) -> Self {
        Self { max, is_full: AtomicBool::new(false), next_look: Mutex::new(Instant::now()) }
    }

    /// Looks again if it is time: `reaches` says whether the deliveries that wait for one subscription are so many.
    pub(crate) fn look(&self, reaches: impl FnOnce(i64) -> Result<bool, BackendError>) -> Result<(), BackendError> {
        let began = Instant::now();
        let mut next_look = self.next_look.lock();
        if began < *next_look {
            return Ok(());
        }
        let is_full = reaches(i64::try_from(self.max).unwrap_or(i64::MAX))?;
        *next_look = Instant::now() + LOOK_EVERY.max(began.elapsed().saturating_mul(REST));
        if is_full && !self.is_full.swap(is_full, Ordering::SeqCst) {
            tracing::warn!(max_backlog = self.max, "a subscription is so far behind that nothing more is stored");
        }
        self.is_full.store(is_full, Ordering::SeqCst);
        Ok(())
    }

    /// What becomes of new events while it is full.
    pub(crate) fn refusal(&self) -> Option<SendOutcome> {
        self.is_full.load(Ordering::SeqCst).then_some(SendOutcome::Full { max_backlog: self.max })
    }
}
