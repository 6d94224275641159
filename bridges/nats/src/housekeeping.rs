//! Housekeeping: removes unused subscriptions, expired records and, if the stream has a limit, messages that every subscription has handled.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::jetstream::api::api;
use crate::jetstream::kv::{self, AT, BOOT, CLOCK, DEAD, FAILED, LEASE, STATUS, SUBSCRIPTION, USED};
use crate::jetstream::{Consumer, ConsumerInfo, Get, KeyValue, Layout, Result, ServerClock, consumer, message, stream};
use crate::membership::{GONE_AFTER, age};
use crate::settings::Nats;
use crate::subscriptions::{self, SubscriptionRecord, Subscriptions};
use crate::transport::Session;

/// The largest number of records of a kind that one run removes.
const REMOVED: usize = 500;
/// The records of acknowledgement floors, which earlier versions wrote.
const EARLIER_ACK_FLOORS: &str = "floor";

/// The housekeeping of a provider.
pub(crate) struct Housekeeping {
    pub(crate) settings: Arc<Nats>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) kv: KeyValue,
    pub(crate) clock: Arc<ServerClock>,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) boot: String,
}

impl Housekeeping {
    /// Creates removed streams, records and consumers again.
    pub(crate) async fn restore(&self, session: &Session) -> Result<()> {
        stream::restore(session, &self.settings, &self.layout, &self.kv).await?;
        self.subscriptions.restore(session).await
    }

    /// One run.
    pub(crate) async fn run(&self, session: &Session) -> Result<()> {
        let (kv, settings) = (&self.kv, &*self.settings);
        let now = self.clock.read(session, kv).await?;
        let gone_after = settings.lease_time.saturating_mul(GONE_AFTER);
        self.subscriptions(session, now, gone_after).await?;
        for kind in [STATUS, FAILED, AT, LEASE, EARLIER_ACK_FLOORS] {
            self.expire(session, kind, now, settings.retention).await?;
        }
        for kind in [BOOT, CLOCK] {
            self.expire(session, kind, now, gone_after).await?;
        }
        let dead = self.expire(session, DEAD, now, settings.retention).await?;
        if dead > 0 {
            tracing::warn!(dead, retention = ?settings.retention, "dead letters have expired");
            kv.count(session, "dead_letters", dead).await?;
        }
        self.trim(session).await
    }

    /// Removes subscriptions that are unused or whose provider is gone, and takes over changes of those that this provider serves.
    async fn subscriptions(&self, session: &Session, now: SystemTime, gone_after: Duration) -> Result<()> {
        let Self { kv, subscriptions, settings, .. } = self;
        let known = subscriptions::all(session, kv).await?;
        let used = kv.get_all(session, known.iter().map(|(durable, _)| kv.key(USED, durable))).await?;
        let owner = |(_, record): &(String, SubscriptionRecord)| {
            // A subscription without an owner needs no heartbeat; any key will do.
            kv.key(BOOT, if record.owner.is_empty() { &self.boot } else { &record.owner })
        };
        let heartbeats = kv.get_all(session, known.iter().map(owner)).await?;
        for (((durable, record), used), heartbeat) in known.iter().zip(used).zip(heartbeats) {
            let is_gone = !record.owner.is_empty() && heartbeat.is_none_or(|it| age(now, &it) > gone_after);
            let is_unused = used.is_some_and(|used| age(now, &used) > settings.idle_expiry);
            if is_unused {
                tracing::warn!(durable, idle_expiry = ?settings.idle_expiry, "an unused subscription is removed");
                kv.count(session, "subscriptions", 1).await?;
            }
            if is_gone || is_unused {
                subscriptions.forget(session, durable).await?;
            } else if subscriptions.durables().contains(durable) {
                subscriptions.retire_patterns(session, durable, record).await?;
                let current = kv.get(session, &kv.key(SUBSCRIPTION, durable)).await?;
                if let Some(record) = current.as_ref().and_then(kv::read) {
                    subscriptions.learn(durable, record);
                }
            }
        }
        Ok(())
    }

    /// Removes the expired records of a kind, and returns their number.
    async fn expire(&self, session: &Session, kind: &str, now: SystemTime, kept: Duration) -> Result<u64> {
        let stream = &self.kv.stream;
        let filter = self.kv.key(kind, ">");
        let mut count = 0;
        for _ in 0..REMOVED {
            let Some(oldest) = message::get(session, stream, Get::Next(filter.clone(), 1)).await? else { break };
            if age(now, &oldest) <= kept {
                break;
            }
            count += u64::from(message::delete(session, stream, oldest.sequence).await?);
        }
        Ok(count)
    }

    /// Removes messages that every subscription has handled, if the stream comes near a limit.
    async fn trim(&self, session: &Session) -> Result<()> {
        let Self { settings, layout, kv, .. } = self;
        let Some(info) = stream::info(session, &layout.stream).await? else { return Ok(()) };
        let number = |name: &str| stream::state(&info, name);
        let is_near = |is: u64, limit: u64| limit > 0 && is >= limit - limit / 4;
        if !is_near(number("messages"), settings.max_messages) && !is_near(number("bytes"), settings.max_bytes) {
            return Ok(());
        }
        let (first, last) = (number("first_seq"), number("last_seq"));
        let handled = first_open(session, layout, kv).await?.unwrap_or(last + 1);
        // Half of the handled messages stay, for queries.
        let before = handled.min(first + (last + 1 - first) / 2 + 1);
        if before > first {
            api(session, &format!("STREAM.PURGE.{}", layout.stream), &json!({ "seq": before })).await??;
        }
        Ok(())
    }
}

/// The first message that some subscription may not have acknowledged; `None` if all are acknowledged, or there is no subscription.
pub(crate) async fn first_open(session: &Session, layout: &Layout, kv: &KeyValue) -> Result<Option<u64>> {
    let known = subscriptions::all(session, kv).await?;
    let consumers: Vec<Consumer> =
        known.iter().flat_map(|(durable, record)| record.event_consumers(layout, kv, durable)).collect();
    let open = |it: ConsumerInfo| match (it.open, it.waiting) {
        (0, 0) => None,
        (0, _) => Some(it.last_delivered + 1),
        _ => Some(it.ack_floor + 1),
    };
    Ok(consumer::infos(session, &consumers).await?.into_iter().filter_map(open).min())
}
