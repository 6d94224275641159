//! Subscriptions: the record of each at the server, those that this provider serves, and the deliveries that it holds of them. A
//! subscription has a Redis consumer group of its own, its `xgroup`, on every stream; `group` is the setting `consumer_group`.

mod held;
mod patterns;

use std::collections::HashMap;
use std::sync::Arc;

use eventbroker::StartPosition;
use eventbroker::provider::BackendError;
use eventbroker::query::Order;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::scripts::{self, Client, entries_at, flag, locate, since_epoch};

pub(crate) use held::{HeldDeliveries, HeldDelivery};
pub(crate) use patterns::PatternHistory;

/// The record of a subscription, as the server stores it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubscriptionRecord {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) pattern: String,
    /// The instance of a broadcast subscription.
    pub(crate) instance: String,
    pub(crate) durable: bool,
    /// The boot id of the provider with which the subscription ends.
    pub(crate) owner: String,
    /// The last entry of each stream when the subscription was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) after: Vec<String>,
    /// Earlier patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) patterns: Vec<EarlierPattern>,
}

/// The pattern of a subscription for the entries of each stream up to these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EarlierPattern {
    pub(crate) until_entries: Vec<String>,
    pub(crate) pattern: String,
}

/// A subscription that this provider serves.
#[derive(Debug, Clone)]
pub(crate) struct LocalSubscription {
    pub(crate) xgroup: Arc<str>,
    pub(crate) record: SubscriptionRecord,
}

/// The subscriptions that this provider serves, by name.
#[derive(Debug, Default)]
pub(crate) struct LocalSubscriptions(Mutex<HashMap<Arc<str>, LocalSubscription>>);

impl LocalSubscriptions {
    pub(crate) fn insert(&self, name: &Arc<str>, subscription: LocalSubscription) {
        self.0.lock().insert(Arc::clone(name), subscription);
    }

    pub(crate) fn get(&self, name: &str) -> Option<LocalSubscription> {
        self.0.lock().get(name).cloned()
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }

    pub(crate) fn all(&self) -> Vec<LocalSubscription> {
        self.0.lock().values().cloned().collect()
    }

    pub(crate) fn xgroups(&self) -> Vec<Arc<str>> {
        self.0.lock().values().map(|it| Arc::clone(&it.xgroup)).collect()
    }
}

/// The name of a subscription's consumer group. `owner` is the instance or the provider that a broadcast subscription belongs to.
pub(crate) fn xgroup_name(group: &str, name: &str, owner: &str) -> String {
    let encoded = |text: &str| text.replace('%', "%25").replace('.', "%2E").replace('@', "%40");
    let shared = format!("{}.{}", encoded(group), encoded(name));
    if owner.is_empty() { shared } else { format!("{shared}@{}", encoded(owner)) }
}

/// Makes a subscription known. It begins after an entry of each stream, or after the same one of all. Returns the known pattern if that is
/// another one and may not change.
pub(crate) fn register(
    client: &mut Client,
    subscription: &LocalSubscription,
    may_change: bool,
    start: &[String],
) -> Result<Option<String>, BackendError> {
    let record = serde_json::to_string(&subscription.record).unwrap_or_default();
    let mut arguments = vec![&*subscription.xgroup, &record, flag(may_change)];
    arguments.extend(start.iter().map(String::as_str));
    let (is_made, known): (bool, String) = client.run(&scripts::REGISTER_SUBSCRIPTION, &arguments)?;
    Ok((!is_made).then_some(known))
}

/// Makes a subscription known again, of which another client has removed a stream. It has read nothing of the new stream. A subscription
/// that is no longer served was removed on purpose.
pub(crate) fn restore(
    client: &mut Client,
    local: &LocalSubscriptions,
    subscription: &LocalSubscription,
) -> Result<(), BackendError> {
    if !local.xgroups().contains(&subscription.xgroup) {
        return Ok(());
    }
    register(client, subscription, true, &["0".to_owned()]).map(drop)
}

/// The entry of each stream after which a subscription begins, or one for all.
pub(crate) fn start_entries(client: &mut Client, start: &StartPosition) -> Result<Vec<String>, BackendError> {
    match start {
        StartPosition::New => Ok(vec!["$".to_owned()]),
        StartPosition::After(id) => match locate(client, id)? {
            Some((number, entry, _)) => entries_at(client, Order::OldestFirst, number, &entry),
            None => Err(BackendError::Refused(format!("start: the event of {start:?} is not held"))),
        },
        // The last possible entry of the millisecond before.
        StartPosition::From(time) => {
            Ok(vec![format!("{}-{}", since_epoch(*time).as_millis().saturating_sub(1), u64::MAX)])
        }
        _ => Ok(vec!["0".to_owned()]),
    }
}
