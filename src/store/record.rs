//! One accepted event and its progress: the unit that the store holds and every delivery shares.
//!
//! The event is immutable; progress lives beside it in atomics, so that workers move it without a lock. Status is
//! derived from the counts of deliveries that are open and that failed. What is not here: where the record stands
//! (`store`), and who moves it (`settle`).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::sync_wait::SyncWait;
use crate::event::{Event, Status};

// Layout of `Record::state`, lowest bits first.
/// Deliveries that are not terminal yet.
const OPEN: u64 = (1 << 32) - 1;
/// The first attempt has begun.
const STARTED: u64 = 1 << 32;
/// `get` has returned it since its publication.
const READ: u64 = 1 << 33;
/// It has left the ring and is held by the older generation.
const AGED: u64 = 1 << 34;
/// The publish that it comes from has dispatched it; one that came in from a back end is not that.
const DISPATCHED: u64 = 1 << 35;
/// A delivery has ended that no back end handed over: that is told to the back end when the last one ends, whichever that is.
const HAS_LOCAL: u64 = 1 << 36;
/// One delivery that is dead or was dropped; the count has the bits above.
const FAILED_ONE: u64 = 1 << 40;

/// An accepted event with its progress.
// What changes stands together, beside the reference counts: a worker that settles a delivery writes one cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    state: AtomicU64,
    /// Wall time of the first attempt; 0 = none yet.
    processed_at: AtomicU64,
    /// Wall time of the last verdict; 0 = none yet.
    completed_at: AtomicU64,
    retries: AtomicU32,
    /// Those of the deliveries that failed that no back end handed over. Counted only with a back end.
    local_failures: AtomicU32,
    /// Who waits for the deliveries of a `publish_sync`.
    sync_wait: OnceLock<Arc<SyncWait>>,
    /// The error of the first delivery that died.
    error: Mutex<Option<Box<ErrorText>>>,
    pub(crate) event: Event,
}

const _: () = assert!(size_of::<Record>() <= 192);

/// Behind a thin pointer, because few events have one.
#[derive(Debug)]
struct ErrorText(Box<str>);

/// Who puts an event into the store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StatusSource<'a> {
    /// A publish, which may wait for the deliveries. The event gets the name of this instance, unless it has one.
    Publish { instance_id: &'a Arc<str>, wait: Option<&'a Arc<SyncWait>> },
    /// The ingest: the publish was elsewhere, or is not done yet.
    Ingest,
}

impl StatusSource<'_> {
    fn sync_wait(self) -> OnceLock<Arc<SyncWait>> {
        match self {
            Self::Publish { wait: Some(wait), .. } => Arc::clone(wait).into(),
            Self::Publish { wait: None, .. } | Self::Ingest => OnceLock::new(),
        }
    }

    fn state(self, deliveries: u32) -> u64 {
        u64::from(deliveries) | if matches!(self, Self::Publish { .. }) { DISPATCHED } else { 0 }
    }
}

/// A reading of a record's state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress(u64);

impl Progress {
    pub(crate) fn is_open(self) -> bool {
        self.0 & OPEN != 0
    }

    pub(crate) fn has_local(self) -> bool {
        self.0 & HAS_LOCAL != 0
    }

    pub(crate) fn is_failed(self) -> bool {
        self.0 >= FAILED_ONE
    }

    pub(crate) fn is_aged(self) -> bool {
        self.0 & AGED != 0
    }

    /// Whether the older generation takes it when it leaves the ring.
    pub(crate) fn is_worth_keeping(self) -> bool {
        self.is_open() || self.is_failed() || self.0 & READ != 0
    }

    pub(crate) fn status(self) -> Status {
        match (self.is_open(), self.0 & STARTED != 0) {
            (true, false) => Status::Pending,
            (true, true) => Status::Processing,
            (false, _) if self.is_failed() => Status::Failed,
            (false, _) => Status::Completed,
        }
    }
}

/// An event that nobody receives is completed at once.
fn completed_from_the_start(event: &Event, deliveries: u32) -> u64 {
    if deliveries == 0 { event.created_nanos() } else { 0 }
}

impl Record {
    pub(crate) fn new(mut event: Event, deliveries: u32, source: StatusSource<'_>) -> Self {
        if let StatusSource::Publish { instance_id, .. } = source {
            event.adopt(instance_id, None);
        }
        Self {
            state: AtomicU64::new(source.state(deliveries)),
            processed_at: AtomicU64::new(0),
            completed_at: AtomicU64::new(completed_from_the_start(&event, deliveries)),
            retries: AtomicU32::new(0),
            local_failures: AtomicU32::new(0),
            sync_wait: source.sync_wait(),
            error: Mutex::new(None),
            event,
        }
    }

    /// Makes this record, which nobody else holds, the record of another event.
    pub(crate) fn reuse(&mut self, event: Event, deliveries: u32, source: StatusSource<'_>) {
        *self.state.get_mut() = source.state(deliveries);
        *self.processed_at.get_mut() = 0;
        *self.completed_at.get_mut() = completed_from_the_start(&event, deliveries);
        *self.retries.get_mut() = 0;
        *self.local_failures.get_mut() = 0;
        self.sync_wait = source.sync_wait();
        *self.error.get_mut() = None;
        let mut old = std::mem::replace(&mut self.event, event);
        if let StatusSource::Publish { instance_id, .. } = source {
            self.event.adopt(instance_id, Some(&mut old));
        }
        old.recycle();
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress(self.state.load(Ordering::Acquire))
    }

    /// An attempt begins. `attempt` counts from 1. True if it is the first of the event.
    pub(crate) fn start_attempt(&self, attempt: u32, wall: u64) -> bool {
        if attempt > 1 {
            // Of all its deliveries, the one that was tried most often counts.
            self.retries.fetch_max(attempt - 1, Ordering::Relaxed);
        }
        let first = self.state.load(Ordering::Relaxed) & STARTED == 0
            && self.state.fetch_or(STARTED, Ordering::AcqRel) & STARTED == 0;
        if first {
            self.processed_at.store(wall, Ordering::Relaxed);
        }
        first
    }

    /// One delivery is terminal. Returns the progress after it; not open means that this was the last one.
    pub(crate) fn settle_one(&self, failed: bool, error: Option<&str>, wall: u64) -> Progress {
        if let Some(error) = error {
            self.error.lock().get_or_insert_with(|| Box::new(ErrorText(error.into())));
        }
        self.completed_at.store(wall, Ordering::Relaxed);
        let change = if failed { FAILED_ONE - 1 } else { u64::MAX };
        Progress(self.state.fetch_add(change, Ordering::AcqRel).wrapping_add(change))
    }

    /// How long it is, at a wall time, since the first attempt, if there was one, and since the event was made. In nanoseconds; 0 if
    /// the clock was set back.
    pub(crate) fn took(&self, wall: u64) -> (Option<u64>, u64) {
        let first = self.processed_at.load(Ordering::Relaxed);
        ((first != 0).then(|| wall.saturating_sub(first)), wall.saturating_sub(self.event.created_nanos()))
    }

    /// A dead delivery runs again. Returns the progress before it.
    pub(crate) fn reopen_one(&self) -> Progress {
        let before = Progress(self.state.fetch_sub(FAILED_ONE - 1, Ordering::AcqRel));
        if before.0 < 2 * FAILED_ONE {
            *self.error.lock() = None;
        }
        before
    }

    /// More deliveries, of an event that is known already. Returns the progress before them.
    pub(crate) fn add(&self, deliveries: u32) -> Progress {
        Progress(self.state.fetch_add(u64::from(deliveries), Ordering::AcqRel))
    }

    /// A delivery ends that no back end handed over. Comes before `settle_one`.
    pub(crate) fn end_local(&self, failed: bool) {
        self.state.fetch_or(HAS_LOCAL, Ordering::AcqRel);
        self.local_failures.fetch_add(u32::from(failed), Ordering::AcqRel);
    }

    /// One of those that failed runs again.
    pub(crate) fn reopen_local(&self) {
        // Those of a broker without a back end were not counted.
        let one_less = |failures: u32| failures.checked_sub(1);
        let _ = self.local_failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    }

    /// The status, and the error, as a back end has to know it besides what it handed over. Only when nothing is open.
    pub(crate) fn local_end(&self) -> (Status, Option<String>) {
        if self.local_failures.load(Ordering::Acquire) == 0 {
            return (Status::Completed, None);
        }
        (Status::Failed, self.error.lock().as_ref().map(|error| String::from(&*error.0)))
    }

    /// Retries of the delivery that was tried most often.
    pub(crate) fn retries(&self) -> u32 {
        self.retries.load(Ordering::Relaxed)
    }

    /// True for the publish that is the first to dispatch it.
    pub(crate) fn dispatch_once(&self) -> bool {
        self.state.fetch_or(DISPATCHED, Ordering::AcqRel) & DISPATCHED == 0
    }

    /// Has the verdicts from now on reported to a waiting publisher. Only the publish that dispatches it may do so.
    pub(crate) fn set_sync_wait(&self, wait: Arc<SyncWait>) {
        // It is empty: whoever put it there waits for nothing.
        let _ = self.sync_wait.set(wait);
    }

    pub(crate) fn sync_wait(&self) -> Option<&Arc<SyncWait>> {
        self.sync_wait.get()
    }

    pub(crate) fn mark_read(&self) {
        if self.state.load(Ordering::Relaxed) & READ == 0 {
            self.state.fetch_or(READ, Ordering::AcqRel);
        }
    }

    /// Returns the progress at that moment: the caller holds the lock of the older generation, so whoever settles
    /// the record later sees the mark and finds it there.
    pub(crate) fn mark_aged(&self) -> Progress {
        Progress(self.state.fetch_or(AGED, Ordering::AcqRel))
    }

    /// The event with its progress, as a reader sees it.
    pub(crate) fn snapshot(&self) -> Event {
        let progress = self.progress();
        let nonzero = |value: &AtomicU64| Some(value.load(Ordering::Relaxed)).filter(|&nanos| nanos != 0);
        let completed = if progress.is_open() { None } else { nonzero(&self.completed_at) };
        let error =
            if progress.is_failed() { self.error.lock().as_ref().map(|error| String::from(&*error.0)) } else { None };
        self.event.tracked(
            progress.status(),
            self.retries.load(Ordering::Relaxed),
            nonzero(&self.processed_at),
            completed,
            error,
        )
    }
}
