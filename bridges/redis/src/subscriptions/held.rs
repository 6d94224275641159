//! The deliveries that this provider holds under a lease.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eventbroker::Event;
use eventbroker::provider::LeaseToken;
use parking_lot::Mutex;

/// A delivery that this provider holds.
#[derive(Debug, Clone)]
pub(crate) struct HeldDelivery {
    pub(crate) xgroup: Arc<str>,
    /// The number of its stream; 0 is the redelivery stream of the subscription.
    pub(crate) number: usize,
    pub(crate) entry: String,
    pub(crate) is_suspect: bool,
    /// Whether another client has removed the entry from the stream: no other member can claim the delivery.
    pub(crate) is_removed: bool,
    /// For its dead letter, or its retry.
    pub(crate) event: Event,
}

#[derive(Debug, Default)]
pub(crate) struct HeldDeliveries {
    held: Mutex<HashMap<u64, HeldDelivery>>,
    last_token: AtomicU64,
    /// The consumer groups of subscriptions with released deliveries, which go before new entries.
    released: Mutex<HashSet<Arc<str>>>,
}

impl HeldDeliveries {
    pub(crate) fn insert(&self, delivery: HeldDelivery) -> LeaseToken {
        let token = self.last_token.fetch_add(1, Ordering::Relaxed) + 1;
        self.held.lock().insert(token, delivery);
        LeaseToken(token)
    }

    pub(crate) fn get(&self, token: LeaseToken) -> Option<HeldDelivery> {
        self.held.lock().get(&token.0).cloned()
    }

    pub(crate) fn get_all(&self, tokens: impl Iterator<Item = LeaseToken>) -> Vec<Option<HeldDelivery>> {
        let held = self.held.lock();
        tokens.map(|token| held.get(&token.0).cloned()).collect()
    }

    pub(crate) fn remove_all(&self, tokens: impl Iterator<Item = LeaseToken>) {
        let mut held = self.held.lock();
        tokens.for_each(|token| _ = held.remove(&token.0));
    }

    pub(crate) fn clear_suspect(&self, token: LeaseToken) {
        self.held.lock().entry(token.0).and_modify(|delivery| delivery.is_suspect = false);
    }

    /// Notes that the entries of deliveries were removed from the stream.
    pub(crate) fn mark_removed(&self, tokens: impl Iterator<Item = LeaseToken>) {
        let mut held = self.held.lock();
        tokens.for_each(|token| _ = held.entry(token.0).and_modify(|delivery| delivery.is_removed = true));
    }

    /// The number of the stream and the entry of each delivery of a subscription.
    pub(crate) fn places(&self, xgroup: &str) -> Vec<(usize, String)> {
        let held = self.held.lock();
        held.values().filter(|it| *it.xgroup == *xgroup).map(|it| (it.number, it.entry.clone())).collect()
    }

    /// The numbers of the streams of which a delivery of a subscription is held.
    pub(crate) fn streams(&self, xgroup: &str) -> BTreeSet<usize> {
        self.held.lock().values().filter(|it| *it.xgroup == *xgroup).map(|it| it.number).collect()
    }

    pub(crate) fn note_released(&self, xgroups: impl IntoIterator<Item = Arc<str>>) {
        self.released.lock().extend(xgroups);
    }

    pub(crate) fn has_released(&self, xgroup: &str) -> bool {
        self.released.lock().contains(xgroup)
    }

    /// Whether a delivery of a subscription was released since the last call.
    pub(crate) fn take_released(&self, xgroup: &str) -> bool {
        self.released.lock().remove(xgroup)
    }
}
