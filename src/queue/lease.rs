//! The leases that this process holds: whether each is still valid, when to extend it, and which are lost with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::hash_text;
use crate::provider::{Lease, LeaseToken};

/// The leases whose settlement the back end does not know yet.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    open: HashMap<LeaseToken, Arc<HeldLease>>,
    /// How many of them are lost, by the hash of the event's key. A key with none left stays until the next
    /// [receive](Self::receive_begins).
    lost: HashMap<u64, usize>,
}

impl Leases {
    /// A receive begins: what it returns was delivered after the leases that are settled by now.
    pub(crate) fn receive_begins(&mut self) {
        self.lost.retain(|_, count| *count > 0);
    }

    /// Adds leases that came in together. One whose key had a lost lease when the receive began, or since, is lost as
    /// well: its event may have to follow that of the lost lease, so the back end has to deliver both again, in order.
    /// Returns those whose lost leases are settled by now: nothing of their keys waits here, so they go back at once.
    pub(crate) fn take_in(&mut self, received: &[Arc<HeldLease>]) -> Vec<LeaseToken> {
        let lost: Vec<_> = received.iter().filter_map(|lease| Some((lease, *self.lost.get(&lease.key?)?))).collect();
        let overtaking = lost.iter().filter(|(_, count)| *count == 0).map(|(lease, _)| lease.token).collect();
        received.iter().for_each(|lease| _ = self.open.insert(lease.token, Arc::clone(lease)));
        lost.iter().for_each(|(lease, _)| _ = self.mark_lost(lease));
        overtaking
    }

    /// Marks a lease as lost: it ended before its delivery was handled. Deliveries of the same key whose call has not
    /// begun have to come again behind it, so their leases are lost too, also those that came later or were extended
    /// meanwhile.
    pub(crate) fn lose_behind(&mut self, lost: &HeldLease) {
        if self.mark_lost(lost) && lost.key.is_some() {
            let behind: Vec<_> = self.open.values().filter(|lease| lease.waits_with(lost)).cloned().collect();
            behind.iter().for_each(|lease| _ = self.mark_lost(lease));
        }
    }

    /// True if the lease was not marked before.
    fn mark_lost(&mut self, lease: &HeldLease) -> bool {
        let newly_lost = !lease.lost.swap(true, Ordering::SeqCst);
        if let Some(key) = lease.key.filter(|_| newly_lost) {
            *self.lost.entry(key).or_default() += 1;
        }
        newly_lost
    }

    /// Removes a lease that the back end has settled.
    pub(crate) fn remove(&mut self, token: LeaseToken) {
        let removed = self.open.remove(&token).filter(|lease| lease.is_marked_lost());
        let Some(key) = removed.and_then(|lease| lease.key) else { return };
        if let Some(count) = self.lost.get_mut(&key) {
            *count -= 1;
        }
    }

    /// The leases to extend now.
    pub(crate) fn due(&self, now: u64, lease_time: u64, max_call: u64) -> Vec<Arc<HeldLease>> {
        self.open.values().filter(|lease| lease.is_due(now, lease_time, max_call)).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

/// A lease from its arrival until it is settled. Times are monotonic nanoseconds.
#[derive(Debug)]
pub(crate) struct HeldLease {
    pub(crate) token: LeaseToken,
    /// The hash of the event's key, if it has one.
    key: Option<u64>,
    /// Marked calls of earlier holders that never ended.
    pub(crate) crashes: u32,
    /// An earlier lease on this delivery was lost, and no call has ended under this one yet.
    suspect: AtomicBool,
    /// The running call has a turn in the queue of suspects.
    in_turn: AtomicBool,
    /// From this time on the lease counts as lost: two thirds of the lease time after the last extension.
    valid_until: AtomicU64,
    /// When the lease was last extended.
    extended: AtomicU64,
    /// When the running call began; 0 = none.
    call_began: AtomicU64,
    lost: AtomicBool,
    settled: AtomicBool,
}

impl HeldLease {
    /// A lease that the back end began at most `age` ago. Without a `lease_time` it does not expire.
    pub(crate) fn new(lease: &Lease, now: u64, age: u64, lease_time: Option<u64>) -> Self {
        let new = Self {
            token: lease.token,
            key: lease.event.key().map(hash_text),
            crashes: lease.crashes,
            suspect: AtomicBool::new(lease.suspect),
            in_turn: AtomicBool::new(false),
            valid_until: AtomicU64::new(u64::MAX),
            extended: AtomicU64::new(0),
            call_began: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            settled: AtomicBool::new(false),
        };
        if let Some(lease_time) = lease_time {
            new.renew(now, age, lease_time);
        }
        new
    }

    pub(crate) fn extend(&self, at: u64, lease_time: u64) {
        self.renew(at, 0, lease_time);
    }

    fn renew(&self, now: u64, age: u64, lease_time: u64) {
        self.extended.store(now.saturating_sub(age), Ordering::SeqCst);
        self.valid_until.store(now.saturating_add(lease_time / 3 * 2).saturating_sub(age), Ordering::SeqCst);
    }

    /// Whether the lease is to be extended: a third of the lease time has passed since the last extension. Not while
    /// its call runs for longer than `max_call`: that may never end.
    fn is_due(&self, now: u64, lease_time: u64, max_call: u64) -> bool {
        let began = self.call_began.load(Ordering::SeqCst);
        let stuck = began != 0 && now.saturating_sub(began) >= max_call;
        !stuck && !self.is_settled() && now.saturating_sub(self.extended.load(Ordering::SeqCst)) >= lease_time / 3
    }

    fn is_marked_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Whether its call has not begun and its event has the same key as that of another lease.
    fn waits_with(&self, other: &Self) -> bool {
        self.key.is_some() && self.key == other.key && self.call_began.load(Ordering::SeqCst) == 0
    }

    /// Whether another member may hold the delivery by now.
    pub(crate) fn is_lost(&self, now: u64) -> bool {
        self.is_marked_lost() || now >= self.valid_until.load(Ordering::SeqCst)
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

    pub(crate) fn begin_turn(&self) {
        self.in_turn.store(true, Ordering::SeqCst);
    }

    /// Ends the turn, and with it the suspicion: a call has ended under this lease. False if there was none.
    pub(crate) fn end_turn(&self) -> bool {
        let was_in_turn = self.in_turn.swap(false, Ordering::SeqCst);
        if was_in_turn {
            self.suspect.store(false, Ordering::SeqCst);
        }
        was_in_turn
    }

    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::SeqCst)
    }
}
