//! A subscription as a row of the table.

use std::sync::Arc;

use eventbroker::provider::{BackendError, Registration};
use eventbroker::{Pattern, Scope, StartPosition};

use crate::member::Member;
use crate::pattern::PatternColumns;

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
        member: &Member,
        instance: &str,
        columns: fn(&Pattern) -> PatternColumns,
    ) -> Result<Self, BackendError> {
        let pattern =
            Pattern::parse(&registration.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
        let is_broadcast = registration.scope == Scope::Broadcast;
        let instance = match (is_broadcast, registration.durable) {
            (false, _) => "",
            (true, false) => &member.id,
            (true, true) => instance,
        };
        Ok(Self {
            group: member.settings.consumer_group.clone(),
            name: Arc::clone(&registration.name),
            instance: instance.to_owned(),
            columns: columns(&pattern),
            pattern: pattern.as_str().to_owned(),
            change_pattern: registration.change_pattern,
            durable: is_broadcast && registration.durable,
            start: registration.start.clone(),
            owner: is_broadcast.then(|| member.id.clone()),
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
