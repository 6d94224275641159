//! The record of an event's status: the part that does not follow from the consumers.

use std::collections::{BTreeMap, BTreeSet};

use eventbroker::{EventId, Status};
use serde::{Deserialize, Serialize};

use crate::jetstream::kv::{FAILED, STATUS};
use crate::jetstream::{KeyValue, Result};
use crate::transport::Session;

/// The record of an event's status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StatusRecord {
    /// The status by local deliveries, which the server does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) retries: u32,
    /// The subscriptions in which the event is a dead letter, with the errors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) dead: BTreeMap<String, String>,
    /// The subscriptions that get the event again, by a requeue or a replay.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) again: BTreeSet<String>,
    /// With `status: full`: the subscriptions that have handled the event, with the time in milliseconds since 1970.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) done: BTreeMap<String, i64>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl StatusRecord {
    pub(crate) fn has_failed(&self) -> bool {
        !self.dead.is_empty() || self.local.as_deref() == Some(Status::Failed.as_str())
    }
}

/// Changes the record of an event, and the key that counts it among the failed ones.
pub(crate) async fn change_status(
    session: &Session,
    kv: &KeyValue,
    id: &EventId,
    mut change: impl FnMut(&mut StatusRecord),
) -> Result<()> {
    let change = |record: &mut StatusRecord| {
        let before = record.has_failed();
        change(record);
        (before != record.has_failed()).then(|| record.has_failed())
    };
    let failed = kv.event_key(FAILED, id);
    match kv.change(session, &kv.event_key(STATUS, id), change).await? {
        Some(true) => kv.put(session, &failed, Vec::new()).await.map(drop),
        Some(false) => kv.remove(session, [failed]).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_its_stored_form() {
        let full = StatusRecord {
            local: Some("failed".to_owned()),
            error: Some("no".to_owned()),
            retries: 2,
            dead: [("workers==a".to_owned(), "late".to_owned())].into(),
            again: ["workers==b".to_owned()].into(),
            done: [("workers==c".to_owned(), 1_700_000_000_000)].into(),
        };
        let of_full = concat!(
            r#"{"local":"failed","error":"no","retries":2,"dead":{"workers==a":"late"},"#,
            r#""again":["workers==b"],"done":{"workers==c":1700000000000}}"#
        );
        for (record, stored) in [(full, of_full), (StatusRecord::default(), "{}")] {
            assert_eq!(serde_json::to_string(&record).expect("it is JSON"), stored);
            assert_eq!(serde_json::from_str::<StatusRecord>(stored).expect("it is a record"), record);
        }
    }
}
