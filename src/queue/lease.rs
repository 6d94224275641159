//! The leases that this process holds: whether each is still good, what happens under it, and what a lost one means for others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::hash_text;
use crate::provider::{Lease, LeaseToken};

/// The leases that are not settled.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    open: HashMap<LeaseToken, Arc<HeldLease>>,
    /// How many of them are lost, by the key of their events.
    lost: HashMap<u64, usize>,
}

impl Leases {
    /// Takes in what came together. What comes while a lease on the same key is lost and not given back yet may belong behind that one's
    /// event: it goes back as well, and comes again when the back end knows of both.
    pub(crate) fn take_in(&mut self, received: &[Arc<HeldLease>]) {
        for lease in received {
            self.open.insert(lease.token, Arc::clone(lease));
            if lease.key.is_some_and(|key| self.lost.contains_key(&key)) {
                self.mark_lost(lease);
            }
        }
    }

    /// A lease has ended before its delivery was handled. What waits behind it, of the same key, has to come again behind it, also if its
    /// own lease came later or was extended meanwhile.
    pub(crate) fn lose_behind(&mut self, lost: &HeldLease) {
        if self.mark_lost(lost) && lost.key.is_some() {
            let behind: Vec<_> = self.open.values().filter(|lease| lease.waits_with(lost)).cloned().collect();
            behind.iter().for_each(|lease| _ = self.mark_lost(lease));
        }
    }

    /// True if it was not known before.
    fn mark_lost(&mut self, lease: &HeldLease) -> bool {
        let is_new = !lease.lost.swap(true, Ordering::SeqCst);
        if let Some(key) = lease.key.filter(|_| is_new) {
            *self.lost.entry(key).or_default() += 1;
        }
        is_new
    }

    /// The back end knows what became of it.
    pub(crate) fn remove(&mut self, token: LeaseToken) {
        let removed = self.open.remove(&token).filter(|lease| lease.is_marked_lost());
        let Some(key) = removed.and_then(|lease| lease.key) else { return };
        if let Some(count) = self.lost.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.lost.remove(&key);
            }
        }
    }

    /// Those that it is time to extend.
    pub(crate) fn due(&self, now: u64, lease_time: u64, max_call: u64) -> Vec<Arc<HeldLease>> {
        self.open.values().filter(|lease| lease.is_due(now, lease_time, max_call)).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

/// A lease from the moment it came in until it is settled. Times are monotonic nanoseconds.
#[derive(Debug)]
pub(crate) struct HeldLease {
    pub(crate) token: LeaseToken,
    /// Stands for the key of its event, if that has one.
    key: Option<u64>,
    /// Marked calls of other holders that never came to an end.
    pub(crate) crashes: u32,
    /// It came back from a lost lease, and has not survived a call since.
    suspect: AtomicBool,
    /// From here on somebody else may hold it: two thirds of the lease have passed since it was last extended.
    good_until: AtomicU64,
    extended: AtomicU64,
    /// When the call that runs began; 0 = none.
    call_began: AtomicU64,
    lost: AtomicBool,
    settled: AtomicBool,
}

impl HeldLease {
    /// A lease that has counted for so long.
    pub(crate) fn new(lease: &Lease, now: u64, age: u64, lease_time: Option<u64>) -> Self {
        let held = Self {
            token: lease.token,
            key: lease.event.key().map(hash_text),
            crashes: lease.crashes,
            suspect: AtomicBool::new(lease.suspect),
            good_until: AtomicU64::new(u64::MAX),
            extended: AtomicU64::new(0),
            call_began: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            settled: AtomicBool::new(false),
        };
        if let Some(lease_time) = lease_time {
            held.renew(now, age, lease_time);
        }
        held
    }

    /// It was extended at that time.
    pub(crate) fn extend(&self, at: u64, lease_time: u64) {
        self.renew(at, 0, lease_time);
    }

    fn renew(&self, now: u64, age: u64, lease_time: u64) {
        self.extended.store(now.saturating_sub(age), Ordering::SeqCst);
        self.good_until.store(now.saturating_add(lease_time / 3 * 2).saturating_sub(age), Ordering::SeqCst);
    }

    /// Whether it is time to extend it. Not while a call lasts longer than `max_call`: that one may never end.
    fn is_due(&self, now: u64, lease_time: u64, max_call: u64) -> bool {
        let began = self.call_began.load(Ordering::SeqCst);
        let stuck = began != 0 && now.saturating_sub(began) >= max_call;
        !stuck && !self.is_settled() && now.saturating_sub(self.extended.load(Ordering::SeqCst)) >= lease_time / 3
    }

    fn is_marked_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Whether its call has not begun, and its event has the same key as another one's.
    fn waits_with(&self, other: &Self) -> bool {
        self.key.is_some() && self.key == other.key && self.call_began.load(Ordering::SeqCst) == 0
    }

    /// Whether somebody else may hold it by now.
    pub(crate) fn is_lost(&self, now: u64) -> bool {
        self.is_marked_lost() || now >= self.good_until.load(Ordering::SeqCst)
    }

    pub(crate) fn begin_call(&self, now: u64) {
        self.call_began.store(now.max(1), Ordering::SeqCst);
    }

    pub(crate) fn end_call(&self) {
        self.call_began.store(0, Ordering::SeqCst);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::SeqCst)
    }

    /// A call has come to an end under it.
    pub(crate) fn clear(&self) {
        self.suspect.store(false, Ordering::SeqCst);
    }

    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::SeqCst)
    }
}
