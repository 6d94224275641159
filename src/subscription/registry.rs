//! The subscriptions of one broker, by id and by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Subscription;
use crate::outcome::SubscriptionId;

/// The registry locks for the length of a method only: no caller iterates, and no user code runs, under its lock.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Subscriptions>);

#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    by_id: BTreeMap<u64, Arc<Subscription>>,
    by_name: HashMap<Arc<str>, u64>,
    /// Subscriptions with worker threads of their own.
    dedicated: Vec<Arc<Subscription>>,
    pub(crate) closed: bool,
}

impl Registry {
    /// Changes the registry in one step. The router may change in the same step.
    pub(crate) fn update<R>(&self, update: impl FnOnce(&mut Subscriptions) -> R) -> R {
        update(&mut self.0.lock())
    }

    pub(crate) fn find(&self, id: SubscriptionId) -> Option<Arc<Subscription>> {
        self.0.lock().by_id.get(&id.0).cloned()
    }

    pub(crate) fn find_by_name(&self, name: &str) -> Option<Arc<Subscription>> {
        self.0.lock().find_by_name(name)
    }

    /// The subscription that a dead letter belongs to: the one that failed, or its successor of the same name.
    pub(crate) fn find_for(&self, failed: SubscriptionId, name: &str) -> Option<Arc<Subscription>> {
        self.find(failed).or_else(|| self.find_by_name(name))
    }

    /// Subscriptions with worker threads of their own.
    pub(crate) fn dedicated(&self) -> Vec<Arc<Subscription>> {
        self.0.lock().dedicated.clone()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Subscription>> {
        self.0.lock().by_id.values().cloned().collect()
    }
}

impl Subscriptions {
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

    pub(crate) fn find_by_name(&self, name: &str) -> Option<Arc<Subscription>> {
        self.by_id.get(self.by_name.get(name)?).cloned()
    }
}
