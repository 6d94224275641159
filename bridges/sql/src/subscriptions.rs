//! The subscriptions that this provider serves, and a subscription as a row of the table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Registration};
use eventbroker::{Pattern, Scope, StartPosition};
use parking_lot::Mutex;

use crate::pattern::PatternColumns;
use crate::settings::Settings;

/// A broadcast subscription is removed when its provider has sent no heartbeat for this many lease times.
pub(crate) const REMOVE_AFTER: u32 = 10;
/// The longest time between two records that a subscription is used.
const RECORD_USE_EVERY: Duration = Duration::from_secs(3600);

/// The subscriptions that this provider serves, by name, each with its `instance` (see [`SubscriptionRecord`]).
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

/// A subscription as its row should be.
pub(crate) struct SubscriptionRecord {
    pub(crate) group: String,
    pub(crate) name: Arc<str>,
    /// The instance that a broadcast subscription belongs to: its name if the subscription is durable, else its provider. Empty for a group.
    pub(crate) instance: String,
    pub(crate) pattern: String,
    pub(crate) columns: PatternColumns,
    pub(crate) change_pattern: bool,
    pub(crate) durable: bool,
    pub(crate) start: StartPosition,
    /// The provider that serves a broadcast subscription.
    pub(crate) owner: Option<String>,
}

impl SubscriptionRecord {
    pub(crate) fn new(
        registration: &Registration,
        settings: &Settings,
        member: &str,
        instance: &str,
        columns: fn(&Pattern) -> PatternColumns,
    ) -> Result<Self, BackendError> {
        let pattern =
            Pattern::parse(&registration.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
        let is_broadcast = registration.scope == Scope::Broadcast;
        let instance = match (is_broadcast, registration.durable) {
            (false, _) => "",
            (true, false) => member,
            (true, true) => instance,
        };
        Ok(Self {
            group: settings.consumer_group.clone(),
            name: Arc::clone(&registration.name),
            instance: instance.to_owned(),
            columns: columns(&pattern),
            pattern: pattern.as_str().to_owned(),
            change_pattern: registration.change_pattern,
            durable: is_broadcast && registration.durable,
            start: registration.start.clone(),
            owner: is_broadcast.then(|| member.to_owned()),
        })
    }

    /// Whether the pattern of the known row has to be changed. An error says why it may not be.
    pub(crate) fn changes_pattern(&self, known: &str) -> Result<bool, String> {
        let Self { name, group, pattern, .. } = self;
        if known != pattern && !self.change_pattern {
            return Err(format!(
                "the subscription {name:?} of the group {group:?} has the pattern {known}, not {pattern}"
            ));
        }
        Ok(known != pattern)
    }

    /// The refusal if the event that the subscription should start after is not in the table.
    pub(crate) fn start_not_held(&self) -> String {
        format!("start: the event of {:?} is not held", self.start)
    }
}

/// When the use of the subscriptions was recorded last.
#[derive(Debug)]
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
