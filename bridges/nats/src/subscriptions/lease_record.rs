//! The record of a message's leases. The server counts deliveries, but does not know whether a lease was given back or lost, and how often a
//! marked call never ended. A message gets a record when it is not handled at the first delivery, and loses it when it is handled.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::jetstream::kv::{self, LEASE};
use crate::jetstream::{Ack, Consumer, DeliveryInfo, KeyValue, Result, ack};
use crate::transport::Session;

/// The record of a message's leases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    /// The last delivery that was given back, as the server counts. The next one is no suspect.
    pub(crate) given_back: u64,
    /// The number of marked calls that never ended.
    pub(crate) crashes: u32,
    /// A marked call has begun, and has not ended.
    #[serde(rename = "begun")]
    pub(crate) is_in_call: bool,
}

/// The key of a message's record.
pub(crate) fn key(kv: &KeyValue, consumer: &Consumer, sequence: u64) -> String {
    let stream = if consumer.is_requeue { "again" } else { "main" };
    format!("{}.{stream}.{sequence}", kv.key(LEASE, &consumer.durable))
}

/// The history of a redelivered message.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RedeliveryInfo {
    /// An earlier lease was lost.
    pub(crate) is_suspect: bool,
    pub(crate) record: LeaseRecord,
    /// The record is stored.
    pub(crate) is_recorded: bool,
}

/// Reads the histories of redelivered messages, and counts a marked call that never ended as a crash.
pub(crate) async fn redelivery_infos(
    session: &Session,
    kv: &KeyValue,
    consumer: &Consumer,
    deliveries: &[DeliveryInfo],
) -> Result<Vec<RedeliveryInfo>> {
    let keys: Vec<String> = deliveries.iter().map(|it| key(kv, consumer, it.sequence)).collect();
    let found = kv.get_all(session, keys.clone()).await?;
    let (mut infos, mut crashed) = (Vec::with_capacity(keys.len()), Vec::new());
    for ((delivery, found), key) in deliveries.iter().zip(found).zip(keys) {
        let is_recorded = found.is_some();
        let mut record: LeaseRecord = found.as_ref().and_then(kv::read).unwrap_or_default();
        let is_suspect = record.given_back + 1 != delivery.times_delivered;
        if is_suspect && record.is_in_call {
            (record.crashes, record.is_in_call) = (record.crashes + 1, false);
            crashed.push((key, kv::write(&record)));
        }
        infos.push(RedeliveryInfo { is_suspect, record, is_recorded });
    }
    kv.put_all(session, crashed).await?;
    Ok(infos)
}

/// A delivery to give back: no call of it has begun.
#[derive(Debug, Clone)]
pub(crate) struct GiveBack {
    pub(crate) consumer: Arc<Consumer>,
    pub(crate) sequence: u64,
    pub(crate) times_delivered: u64,
    pub(crate) record: LeaseRecord,
    pub(crate) nak: Ack,
}

/// Gives deliveries back to the server.
pub(crate) async fn give_back(session: &Session, kv: &KeyValue, back: Vec<GiveBack>) -> Result<()> {
    let record = |it: &GiveBack| {
        let record = LeaseRecord { given_back: it.times_delivered, is_in_call: false, ..it.record };
        (key(kv, &it.consumer, it.sequence), kv::write(&record))
    };
    kv.put_all(session, back.iter().map(record).collect()).await?;
    ack::ack_all(session, &back.into_iter().map(|it| it.nak).collect::<Vec<_>>()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_its_stored_form() {
        let (record, stored) = (
            LeaseRecord { given_back: 2, crashes: 1, is_in_call: true },
            r#"{"given_back":2,"crashes":1,"begun":true}"#,
        );
        assert_eq!(serde_json::to_string(&record).expect("it is JSON"), stored);
        assert_eq!(serde_json::from_str::<LeaseRecord>(stored).expect("it is a record"), record);
    }
}
