//! The subscriptions that this provider serves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A broadcast subscription is removed when its provider has sent no heartbeat for this many lease times.
pub(crate) const REMOVE_AFTER: u32 = 10;
/// The longest time between two records that a subscription is used.
const RECORD_USE_EVERY: Duration = Duration::from_secs(3600);

/// The subscriptions that this provider serves, by name, each with its `instance` (see `record`).
#[derive(Debug, Default)]
pub(crate) struct LocalSubscriptions(Mutex<HashMap<Arc<str>, String>>);

impl LocalSubscriptions {
    pub(crate) fn insert(&self, name: &Arc<str>, instance: String) {
        self.0.lock().insert(Arc::clone(name), instance);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }

    pub(crate) fn instance_of(&self, name: &str) -> Option<String> {
        self.0.lock().get(name).cloned()
    }

    /// All names, each with its instance.
    pub(crate) fn all(&self) -> (Vec<String>, Vec<String>) {
        self.0.lock().iter().map(|(name, instance)| (name.to_string(), instance.clone())).unzip()
    }
}

/// When the use of the subscriptions was recorded last.
pub(crate) struct UseRecord {
    every: Duration,
    recorded_at: Option<Instant>,
}

impl UseRecord {
    pub(crate) fn new(idle_expiry: Duration) -> Self {
        Self { every: RECORD_USE_EVERY.min(idle_expiry / 4), recorded_at: None }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.recorded_at.is_none_or(|at| at.elapsed() >= self.every)
    }

    pub(crate) fn recorded(&mut self) {
        self.recorded_at = Some(Instant::now());
    }
}
