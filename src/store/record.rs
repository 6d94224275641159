//! One accepted event and its progress: the unit that the store holds and that all its deliveries share.
//!
//! The event is immutable. Its progress is in atomics beside it, so workers update it without a lock. The status is
//! derived from the counts of open and of failed deliveries. Where a record is kept is in `store`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::sync_wait::SyncWait;
use crate::event::{Event, Status};

// Layout of `Record::state`, lowest bits first.
/// The number of deliveries that are not terminal yet.
const OPEN: u64 = (1 << 32) - 1;
/// The first attempt has begun.
const STARTED: u64 = 1 << 32;
/// `get` has returned the event since it was stored.
const READ: u64 = 1 << 33;
/// The record has left the ring and is in the aged generation.
const AGED: u64 = 1 << 34;
/// A publish of this process dispatches the event. Not set while only the ingest has brought it in.
const DISPATCHED: u64 = 1 << 35;
/// A delivery without a lease has ended. The back end gets the status when the last delivery ends, leased or not.
const HAS_LOCAL: u64 = 1 << 36;
/// One delivery that is dead or was dropped; their number is in this bit and those above.
const FAILED_ONE: u64 = 1 << 40;

/// An accepted event with its progress.
// The fields that change come first, beside the reference count, so settling a delivery writes one cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    state: AtomicU64,
    /// Wall time of the first attempt; 0 = none yet.
    processed_at: AtomicU64,
    /// Wall time of the last verdict; 0 = none yet.
    completed_at: AtomicU64,
    retries: AtomicU32,
    /// Failed deliveries without a lease. Counted only with a back end.
    local_failures: AtomicU32,
    /// The `publish_sync` that waits for the deliveries.
    sync_wait: OnceLock<Arc<SyncWait>>,
    /// The error of the first delivery that died.
    error: Mutex<Option<Box<ErrorText>>>,
    pub(crate) event: Event,
}

const _: () = assert!(size_of::<Record>() <= 192);

/// Behind a thin pointer, because few events have an error.
#[derive(Debug)]
struct ErrorText(Box<str>);

/// How an event gets into the store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StatusSource<'a> {
    /// A publish, which may wait for the deliveries. The event gets the name of this instance unless it has an origin.
    Publish { instance_id: &'a Arc<str>, wait: Option<&'a Arc<SyncWait>> },
    /// The ingest: another instance published the event, or a publish here that has not stored it yet.
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

    /// Whether the record moves to the aged generation when it leaves the ring.
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

/// An event without deliveries is completed when it is created.
fn initial_completed_at(event: &Event, deliveries: u32) -> u64 {
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
            completed_at: AtomicU64::new(initial_completed_at(&event, deliveries)),
            retries: AtomicU32::new(0),
            local_failures: AtomicU32::new(0),
            sync_wait: source.sync_wait(),
            error: Mutex::new(None),
            event,
        }
    }

    /// Makes this record, to which no other reference exists, the record of another event.
    pub(crate) fn reuse(&mut self, event: Event, deliveries: u32, source: StatusSource<'_>) {
        *self.state.get_mut() = source.state(deliveries);
        *self.processed_at.get_mut() = 0;
        *self.completed_at.get_mut() = initial_completed_at(&event, deliveries);
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

    /// Notes that an attempt begins; `attempt` counts from 1. True if it is the first of the event.
    pub(crate) fn start_attempt(&self, attempt: u32, wall: u64) -> bool {
        if attempt > 1 {
            // An event shows the retries of its delivery with the most attempts.
            self.retries.fetch_max(attempt - 1, Ordering::Relaxed);
        }
        let first = self.state.load(Ordering::Relaxed) & STARTED == 0
            && self.state.fetch_or(STARTED, Ordering::AcqRel) & STARTED == 0;
        if first {
            self.processed_at.store(wall, Ordering::Relaxed);
        }
        first
    }

    /// Notes that one delivery is terminal. Returns the progress after it: not open if this was the last delivery.
    pub(crate) fn settle_one(&self, failed: bool, error: Option<&str>, wall: u64) -> Progress {
        if let Some(error) = error {
            self.error.lock().get_or_insert_with(|| Box::new(ErrorText(error.into())));
        }
        self.completed_at.store(wall, Ordering::Relaxed);
        let change = if failed { FAILED_ONE - 1 } else { u64::MAX };
        Progress(self.state.fetch_add(change, Ordering::AcqRel).wrapping_add(change))
    }

    /// Nanoseconds from the first attempt, if there was one, and from the creation of the event, to a wall time. 0 if
    /// the clock was set back.
    pub(crate) fn took(&self, wall: u64) -> (Option<u64>, u64) {
        let first = self.processed_at.load(Ordering::Relaxed);
        ((first != 0).then(|| wall.saturating_sub(first)), wall.saturating_sub(self.event.created_nanos()))
    }

    /// Makes a dead delivery open again. Returns the progress before it.
    pub(crate) fn reopen_one(&self) -> Progress {
        let before = Progress(self.state.fetch_sub(FAILED_ONE - 1, Ordering::AcqRel));
        if before.0 < 2 * FAILED_ONE {
            *self.error.lock() = None;
        }
        before
    }

    /// Adds open deliveries of a known event. Returns the progress before them.
    pub(crate) fn add(&self, deliveries: u32) -> Progress {
        Progress(self.state.fetch_add(u64::from(deliveries), Ordering::AcqRel))
    }

    /// Notes that a delivery without a lease ends. Must come before `settle_one`.
    pub(crate) fn end_local(&self, failed: bool) {
        self.state.fetch_or(HAS_LOCAL, Ordering::AcqRel);
        self.local_failures.fetch_add(u32::from(failed), Ordering::AcqRel);
    }

    /// Takes back one failure of a delivery without a lease, which runs again.
    pub(crate) fn reopen_local(&self) {
        // None is counted for a dead letter of a leased delivery that is kept here.
        let one_less = |failures: u32| failures.checked_sub(1);
        let _ = self.local_failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    }

    /// The status and error of the deliveries without a lease, for the back end. Valid only when no delivery is open.
    pub(crate) fn local_end(&self) -> (Status, Option<String>) {
        if self.local_failures.load(Ordering::Acquire) == 0 {
            return (Status::Completed, None);
        }
        (Status::Failed, self.error.lock().as_ref().map(|error| String::from(&*error.0)))
    }

    /// Retries of the delivery with the most attempts.
    pub(crate) fn retries(&self) -> u32 {
        self.retries.load(Ordering::Relaxed)
    }

    /// True for the first publish that dispatches the event.
    pub(crate) fn dispatch_once(&self) -> bool {
        self.state.fetch_or(DISPATCHED, Ordering::AcqRel) & DISPATCHED == 0
    }

    /// Reports verdicts from now on to a waiting publisher. Only the publish that dispatches the event may call this.
    pub(crate) fn set_sync_wait(&self, wait: Arc<SyncWait>) {
        // The cell is empty: the ingest, which stored the event, waits for no verdict.
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

    /// Marks the record as aged and returns the progress before that. The caller holds the lock of the aged generation:
    /// a worker whose `settle_one` comes after this sees the mark in its result, takes that lock, and finds the record.
    pub(crate) fn mark_aged(&self) -> Progress {
        Progress(self.state.fetch_or(AGED, Ordering::AcqRel))
    }

    /// A copy of the event with its progress at this moment.
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
