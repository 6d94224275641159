//! The incoming half of a bridge: the leases that are not settled, and the state of the ingest thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::notify::Notify;
use crate::provider::Waker;
use crate::queue::{HeldLease, Leases};
use crate::subscription::Subscription;

/// The incoming half of a bridge.
pub(crate) struct Inbound {
    /// Interrupts an ingest that waits inside a call of the back end.
    waker: Option<Waker>,
    /// Wakes the ingest thread when it waits outside the back end.
    pub(crate) notify: Notify,
    /// The lease time, set when the threads start. An inner `None`: leases do not expire.
    lease_time: OnceLock<Option<Duration>>,
    /// Leases that are not settled.
    pub(crate) leases: Mutex<Leases>,
    /// Settlements that the back end has not acknowledged yet.
    pub(crate) outstanding: AtomicU64,
    /// At the last poll some subscription was less than half empty, so its credit was small.
    pub(crate) without_credit: AtomicBool,
    /// The ingest thread may be receiving: set before it reads the phase, cleared after the deliveries are enqueued.
    pub(crate) receiving: AtomicBool,
    pub(crate) ingested: AtomicU64,
    pub(crate) released: AtomicU64,
    pub(crate) leases_lost: AtomicU64,
}

impl Inbound {
    pub(super) fn new(waker: Option<Waker>) -> Self {
        Self {
            waker,
            notify: Notify::default(),
            lease_time: OnceLock::new(),
            leases: Mutex::default(),
            outstanding: AtomicU64::new(0),
            without_credit: AtomicBool::new(false),
            receiving: AtomicBool::new(false),
            ingested: AtomicU64::new(0),
            released: AtomicU64::new(0),
            leases_lost: AtomicU64::new(0),
        }
    }

    pub(super) fn set_lease_time(&self, lease_time: Option<Duration>) {
        self.lease_time.get_or_init(|| lease_time);
    }

    pub(crate) fn lease_time(&self) -> Option<Duration> {
        self.lease_time.get().copied().flatten()
    }

    /// A delivery has ended, and its settlement is outstanding until the back end acknowledges it.
    pub(super) fn settled(&self, lease: &HeldLease, released: bool) {
        if released {
            self.released.fetch_add(1, Ordering::SeqCst);
        }
        lease.settle();
        self.outstanding.fetch_add(1, Ordering::SeqCst);
    }

    /// Wakes the ingest thread, which then computes the credit of each subscription anew.
    pub(crate) fn wake(&self) {
        self.notify.notify();
        if let Some(wake) = &self.waker {
            wake();
        }
    }

    /// A delivery has left a queue. Wakes the ingest if its credit was small and the queue is half empty.
    pub(crate) fn note_free_capacity(&self, subscription: &Subscription) {
        if self.without_credit.load(Ordering::Relaxed)
            && subscription.inbox.is_half_empty()
            && self.without_credit.swap(false, Ordering::SeqCst)
        {
            self.wake();
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        !self.receiving.load(Ordering::SeqCst) && self.outstanding.load(Ordering::SeqCst) == 0
    }
}
