//! What is known of subscriptions, and how one becomes known. Who serves them is told in [`settler`](crate::settle::settler).

use eventbroker::provider::BackendError;
use redis::Value;
use serde::{Deserialize, Serialize};

use crate::scripts;
use crate::scripts::entry::{list, number, text, unexpected};
use crate::transport::link::{Link, Served};

/// What is known of a subscription.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) pattern: String,
    /// Of a broadcast subscription: the name of the instance that it belongs to.
    pub(crate) instance: String,
    pub(crate) durable: bool,
    /// Of one that goes with its provider: that one.
    pub(crate) owner: String,
    /// The last entry of each stream when it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) after: Vec<String>,
    /// The patterns that it had before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) patterns: Vec<Earlier>,
}

/// A pattern that a subscription had for the entries up to those.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Earlier {
    pub(crate) until_entries: Vec<String>,
    pub(crate) pattern: String,
}

/// Makes a subscription known, which begins after an entry of each stream, or the same of all. Returns its pattern if it has another one.
pub(crate) fn make(
    link: &mut Link,
    served: &Served,
    change: bool,
    start: &[String],
) -> Result<Option<String>, BackendError> {
    let info = serde_json::to_string(&served.info).unwrap_or_default();
    let mut arguments = [&*served.unit, &info, if change { "1" } else { "0" }].map(str::as_bytes).to_vec();
    arguments.extend(start.iter().map(String::as_bytes));
    let [made, told] = <[Value; 2]>::try_from(list(link.run(&scripts::REGISTER_SUBSCRIPTION, &arguments)?)?)
        .map_err(|it| unexpected(&Value::Array(it)))?;
    if number(made)? == 1 { Ok(None) } else { text(told).map(Some) }
}
