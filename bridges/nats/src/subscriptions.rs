//! Subscriptions: their records beside the stream, their durable consumers, and those that this provider serves.
//!
//! A subscription has a consumer for its events, one per partition if there are partitions, and one for requeues and replays. A changed pattern counts
//! for messages that are stored from then on. Until the older ones are handled, the consumers' filters match both patterns, and the members
//! leave out the messages whose pattern does not match.

mod delivery;
mod held_messages;
mod lease_record;
mod recent_acks;
mod record;
mod ring;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use parking_lot::Mutex;
use serde_json::json;

use crate::jetstream::api::api;
use crate::jetstream::kv::{self, LEASE, OWNERS, SUBSCRIPTION, USED};
use crate::jetstream::{Consumer, KeyValue, Layout, Result, consumer, message, stream};
use crate::transport::Session;

pub(crate) use delivery::PulledDelivery;
pub(crate) use held_messages::{HeldMessage, HeldMessages, MessageKey};
pub(crate) use lease_record::{GiveBack, LeaseRecord, RedeliveryInfo, give_back, key as lease_key, redelivery_infos};
pub(crate) use record::SubscriptionRecord;
pub(crate) use ring::Ring;

/// A subscription that this provider serves.
#[derive(Debug, Clone)]
pub(crate) struct LocalSubscription {
    pub(crate) durable: String,
    pub(crate) record: SubscriptionRecord,
    pub(crate) consumers: Vec<Arc<Consumer>>,
}

/// The subscriptions of this provider, by name, and the access to the records of all.
pub(crate) struct Subscriptions {
    layout: Arc<Layout>,
    kv: KeyValue,
    lease: Duration,
    local: Mutex<HashMap<Arc<str>, LocalSubscription>>,
}

impl Subscriptions {
    pub(crate) fn new(layout: &Arc<Layout>, kv: &KeyValue, lease: Duration) -> Self {
        Self { layout: Arc::clone(layout), kv: kv.clone(), lease, local: Mutex::default() }
    }

    /// The subscriptions that this provider serves.
    pub(crate) fn local(&self) -> Vec<(Arc<str>, LocalSubscription)> {
        self.local.lock().iter().map(|(name, it)| (Arc::clone(name), it.clone())).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.local.lock().len()
    }

    pub(crate) fn get(&self, name: &str) -> Option<LocalSubscription> {
        self.local.lock().get(name).cloned()
    }

    /// Their durable names.
    pub(crate) fn durables(&self) -> Vec<String> {
        self.local.lock().values().map(|it| it.durable.clone()).collect()
    }

    pub(crate) fn add(&self, name: &Arc<str>, durable: String, record: SubscriptionRecord) {
        let consumers = self.consumers(&durable, &record).into_iter().map(Arc::new).collect();
        self.local.lock().insert(Arc::clone(name), LocalSubscription { durable, record, consumers });
    }

    pub(crate) fn remove(&self, name: &str) {
        self.local.lock().remove(name);
    }

    /// Removes all of them.
    pub(crate) fn take(&self) -> Vec<LocalSubscription> {
        std::mem::take(&mut *self.local.lock()).into_values().collect()
    }

    /// Takes over the record that another member may have changed.
    pub(crate) fn learn(&self, durable: &str, record: SubscriptionRecord) {
        let mut local = self.local.lock();
        if let Some(known) = local.values_mut().find(|it| it.durable == durable && it.record != record) {
            known.consumers = self.consumers(durable, &record).into_iter().map(Arc::new).collect();
            known.record = record;
        }
    }

    /// Reads the record of a subscription that this provider serves. False if it had changed.
    pub(crate) async fn is_current(&self, session: &Session, durable: &str) -> Result<bool> {
        let known = self.local.lock().values().find(|it| it.durable == durable).map(|it| it.record.clone());
        let (sequence, record) = self.kv.read(session, &self.kv.key(SUBSCRIPTION, durable)).await?;
        let is_current = sequence == 0 || known.is_none_or(|known| known == record);
        if !is_current {
            self.learn(durable, record);
        }
        Ok(is_current)
    }

    pub(crate) fn consumers(&self, durable: &str, record: &SubscriptionRecord) -> Vec<Consumer> {
        record.consumers(&self.layout, &self.kv, durable)
    }

    /// Makes a subscription known and its consumers, or joins its members. Returns the record, or the pattern of the other members if that
    /// differs and must not change.
    pub(crate) async fn register(
        &self,
        session: &Session,
        durable: &str,
        mut new: SubscriptionRecord,
        may_change: bool,
    ) -> Result<Result<SubscriptionRecord, String>> {
        let (kv, key) = (&self.kv, self.kv.key(SUBSCRIPTION, durable));
        let created_at = stream::created_at(session, &self.layout.stream).await?;
        loop {
            let (last, known): (u64, Option<SubscriptionRecord>) = kv.read(session, &key).await?;
            let record = match known.clone() {
                None => {
                    new.stream_made.clone_from(&created_at);
                    new.after = stream::last(session, &self.layout.stream).await?;
                    if new.start == 0 {
                        new.start = new.after + 1;
                    }
                    new.clone()
                }
                Some(known) if known.pattern != new.pattern && !may_change => return Ok(Err(known.pattern)),
                Some(known) => {
                    let mut record = known.in_stream(&created_at);
                    record.check_generation()?;
                    if record.pattern != new.pattern {
                        // Both patterns match before the new one counts, so that the server skips no message.
                        let mut wider = record.clone();
                        wider.change_pattern(new.pattern.clone(), 0);
                        consumer::ensure_all(session, &self.consumers(durable, &wider), self.lease).await?;
                        let until = stream::last(session, &self.layout.stream).await?;
                        record.change_pattern(new.pattern.clone(), until);
                    }
                    record.owner.clone_from(&new.owner);
                    record
                }
            };
            let is_same = known.as_ref() == Some(&record);
            if is_same || kv.replace(session, &key, last, kv::write(&record)).await?.is_some() {
                consumer::ensure_all(session, &self.consumers(durable, &record), self.lease).await?;
                return Ok(Ok(record));
            }
        }
    }

    /// Removes a subscription with its backlog. False if it was not known.
    pub(crate) async fn forget(&self, session: &Session, durable: &str) -> Result<bool> {
        let kv = &self.kv;
        let Some(entry) = kv.get(session, &kv.key(SUBSCRIPTION, durable)).await? else { return Ok(false) };
        let record: SubscriptionRecord = kv::read(&entry).unwrap_or_default();
        consumer::remove_all(session, &record.all_consumers(&self.layout, kv, durable)).await?;
        for filter in [
            kv.requeues(durable),
            kv.dead_letters_of(&record.group, durable),
            format!("{}.>", kv.key(LEASE, durable)),
            kv.key(USED, durable),
            kv.key(OWNERS, durable),
        ] {
            api(session, &format!("STREAM.PURGE.{}", kv.stream), &json!({ "filter": filter })).await??;
        }
        message::delete(session, &kv.stream, entry.sequence).await
    }

    /// Drops the earlier patterns of a subscription, and their filters, when every message that they count for is handled.
    pub(crate) async fn retire_patterns(
        &self,
        session: &Session,
        durable: &str,
        record: &SubscriptionRecord,
    ) -> Result<()> {
        let Some(until) = record.earlier.iter().map(|it| it.until).max() else { return Ok(()) };
        let consumers = record.event_consumers(&self.layout, &self.kv, durable);
        if consumer::infos(session, &consumers).await?.iter().any(|info| !info.has_handled(until)) {
            return Ok(());
        }
        let retire = |known: &mut SubscriptionRecord| {
            known.earlier.retain(|it| !record.earlier.contains(it));
            known.clone()
        };
        let left = self.kv.change(session, &self.kv.key(SUBSCRIPTION, durable), retire).await?;
        if left.earlier.is_empty() {
            for consumer in left.event_consumers(&self.layout, &self.kv, durable) {
                consumer::narrow(session, &consumer).await?;
            }
        }
        Ok(())
    }

    /// Makes the records and the consumers of the served subscriptions again, which were removed.
    pub(crate) async fn restore(&self, session: &Session) -> Result<()> {
        let created_at = stream::created_at(session, &self.layout.stream).await?;
        for (_, LocalSubscription { durable, record, .. }) in self.local() {
            let key = self.kv.key(SUBSCRIPTION, &durable);
            let (last, known): (u64, Option<SubscriptionRecord>) = self.kv.read(session, &key).await?;
            let record = known.clone().unwrap_or(record).in_stream(&created_at);
            if known.as_ref() != Some(&record) {
                // A member that is faster writes the same.
                self.kv.replace(session, &key, last, kv::write(&record)).await?;
            }
            consumer::ensure_all(session, &self.consumers(&durable, &record), self.lease).await?;
            self.learn(&durable, record);
        }
        Ok(())
    }
}

/// The records of all subscriptions, with their durable names.
pub(crate) async fn all(session: &Session, kv: &KeyValue) -> Result<Vec<(String, SubscriptionRecord)>> {
    let prefix = kv.key(SUBSCRIPTION, "");
    let known = kv.all(session, &format!("{SUBSCRIPTION}.>")).await?;
    let durable = |subject: &Subject| subject.as_str().strip_prefix(&prefix).map(str::to_owned);
    Ok(known.iter().filter_map(|entry| Some((durable(&entry.subject)?, kv::read(entry)?))).collect())
}
