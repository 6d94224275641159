//! The subscriptions of one broker, by id and by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Subscription;
use crate::outcome::SubscriptionId;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    by_id: BTreeMap<u64, Arc<Subscription>>,
    by_name: HashMap<Arc<str>, u64>,
    /// Subscriptions with worker threads of their own.
    dedicated: Vec<Arc<Subscription>>,
    closed: bool,
}

impl Registry {
    /// Adds a subscription. The caller has checked that its name is free.
    pub(crate) fn insert(&mut self, subscription: &Arc<Subscription>, dedicated: bool) {
        self.by_name.insert(Arc::clone(&subscription.name), subscription.id.0);
        self.by_id.insert(subscription.id.0, Arc::clone(subscription));
        if dedicated {
            self.dedicated.push(Arc::clone(subscription));
        }
    }

    /// Removes a subscription. False if it was not registered.
    pub(crate) fn remove(&mut self, subscription: &Subscription) -> bool {
        self.by_name.remove(&subscription.name);
        self.dedicated.retain(|it| it.id != subscription.id);
        self.by_id.remove(&subscription.id.0).is_some()
    }

    pub(crate) fn find(&self, id: SubscriptionId) -> Option<Arc<Subscription>> {
        self.by_id.get(&id.0).cloned()
    }

    pub(crate) fn find_by_name(&self, name: &str) -> Option<Arc<Subscription>> {
        self.by_id.get(self.by_name.get(name)?).cloned()
    }

    /// The subscription that a dead letter belongs to: the one that failed, or its successor of the same name.
    pub(crate) fn find_for(&self, failed: SubscriptionId, name: &str) -> Option<Arc<Subscription>> {
        self.find(failed).or_else(|| self.find_by_name(name))
    }

    /// Subscriptions with worker threads of their own.
    pub(crate) fn dedicated(&self) -> Vec<Arc<Subscription>> {
        self.dedicated.clone()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Subscription>> {
        self.by_id.values().cloned().collect()
    }

    /// Marks the registry as closed: callers add no subscription after that.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}
