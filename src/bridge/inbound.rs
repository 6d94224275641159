//! What came in from the back end and is not settled: the leases, and the state of the ingest thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::notify::Notify;
use crate::provider::Waker;
use crate::queue::{HeldLease, Leases};
use crate::subscription::Subscription;

/// The incoming half of a bridge.
pub(crate) struct Inbound {
    /// Interrupts an ingest that waits at the back end.
    waker: Option<Waker>,
    /// Wakes the ingest thread when it does not wait at the back end.
    pub(crate) notify: Notify,
    /// How long a lease lasts; known once the threads have started. `None` inside: leases do not expire.
    lease_time: OnceLock<Option<Duration>>,
    /// Leases that are not settled.
    leases: Mutex<Leases>,
    /// Verdicts on leases that the back end does not know yet.
    outstanding: AtomicU64,
    /// Some subscription was less than half empty when the ingest polled last, so its credit was small.
    without_credit: AtomicBool,
    /// Deliveries may be coming in: the ingest thread has read the broker's phase and has not taken them in yet.
    receiving: AtomicBool,
    ingested: AtomicU64,
    released: AtomicU64,
    leases_lost: AtomicU64,
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

    pub(crate) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock()
    }

    /// Marks a lease as lost, and with it those that wait behind it: see [`Leases::lose_behind`].
    pub(crate) fn lose_behind(&self, lost: &HeldLease) {
        self.leases.lock().lose_behind(lost);
    }

    /// A delivery has ended; its settlement is on its way to the back end.
    pub(super) fn settled(&self, lease: &HeldLease, released: bool) {
        if released {
            self.released.fetch_add(1, Ordering::SeqCst);
        }
        lease.settle();
        self.outstanding.fetch_add(1, Ordering::SeqCst);
    }

    /// The back end knows so many settlements more.
    pub(crate) fn acknowledged(&self, settlements: usize) {
        self.outstanding.fetch_sub(settlements as u64, Ordering::SeqCst);
    }

    /// Wakes the ingest thread, which then asks again for how many deliveries there is credit.
    pub(crate) fn wake(&self) {
        self.notify.notify();
        if let Some(wake) = &self.waker {
            wake();
        }
    }

    pub(crate) fn set_without_credit(&self, without: bool) {
        self.without_credit.store(without, Ordering::SeqCst);
    }

    /// A delivery has left the queue of a subscription. Wakes the ingest if it was short of credit and the queue is half empty.
    pub(super) fn note_free_capacity(&self, subscription: &Subscription) {
        if self.without_credit.load(Ordering::Relaxed)
            && subscription.inbox.is_half_empty()
            && self.without_credit.swap(false, Ordering::SeqCst)
        {
            self.wake();
        }
    }

    pub(crate) fn set_receiving(&self, receiving: bool) {
        self.receiving.store(receiving, Ordering::SeqCst);
    }

    pub(super) fn is_flushed(&self) -> bool {
        !self.receiving.load(Ordering::SeqCst) && self.outstanding.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn count_ingested(&self, deliveries: usize) {
        self.ingested.fetch_add(deliveries as u64, Ordering::SeqCst);
    }

    pub(crate) fn count_lost(&self, leases: usize) {
        self.leases_lost.fetch_add(leases as u64, Ordering::SeqCst);
    }

    pub(super) fn ingested(&self) -> u64 {
        self.ingested.load(Ordering::SeqCst)
    }

    /// Deliveries that were released because this process ended or gave them up.
    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::SeqCst)
    }

    pub(super) fn leases_lost(&self) -> u64 {
        self.leases_lost.load(Ordering::SeqCst)
    }
}
