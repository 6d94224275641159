//! A new number of partitions for a stream. Allowed only while no instance uses the stream and no delivery waits, since waiting deliveries would
//! lose their order.

use serde_json::{Value, json};

use crate::jetstream::api::{api, nanos};
use crate::jetstream::kv::{self, OWNERS, SUBSCRIPTION};
use crate::jetstream::layout::{self, PartitionRecord};
use crate::jetstream::stream::{self, Accepted};
use crate::jetstream::{Consumer, KeyValue, Layout, Result, ServerClock, consumer};
use crate::membership::{self, GONE_AFTER};
use crate::settings::Nats;
use crate::subscriptions::{self, SubscriptionRecord};
use crate::transport::Session;

/// The recorded number of partitions of a stream; 0 for a stream that is older than the record.
pub(crate) async fn recorded_partitions(session: &Session, layout: &Layout, kv: &KeyValue) -> Result<Option<u32>> {
    if let Some((_, record)) = layout::recorded(session, kv).await? {
        return Ok(Some(record.partitions));
    }
    let stream = stream::info(session, &layout.stream).await?;
    Ok(stream.filter(|stream| !layout.fits(stream)).map(|_| 0))
}

/// A change of the partitions of a stream from one layout to another.
struct Repartition<'a> {
    session: &'a Session,
    settings: &'a Nats,
    kv: &'a KeyValue,
    from: &'a Layout,
    to: &'a Layout,
}

/// Changes the partitions of a stream. An interrupted change can be repeated: no message is lost, and the number is recorded last.
pub(crate) async fn repartition(
    session: &Session,
    settings: &Nats,
    from: &Layout,
    to: &Layout,
    clock: &ServerClock,
) -> Result<Accepted> {
    let kv = &KeyValue::new(settings);
    let Some(known) = stream::info(session, &from.stream).await? else {
        return stream::ensure(session, settings, to, kv).await;
    };
    stream::ensure_state(session, settings, kv).await?;
    let refuse = |problem: String| Ok(Err(format!("the stream {:?} can't be repartitioned: {problem}", from.stream)));
    let used = membership::living(session, kv, clock, GONE_AFTER).await?;
    if used > 0 {
        return refuse(format!("{used} instances use it, or did so less than ten leases ago"));
    }
    let known_subscriptions = subscriptions::all(session, kv).await?;
    let mut consumers: Vec<Consumer> = Vec::new();
    for (durable, record) in &known_subscriptions {
        record.check_generation()?;
        consumers.extend(record.consumers(from, kv, durable));
    }
    let infos = consumer::infos(session, &consumers).await?;
    let waiting: u64 = infos.iter().map(|info| info.open + info.waiting).sum();
    if waiting > 0 {
        return refuse(format!("{waiting} deliveries wait"));
    }
    if from.partitions == to.partitions {
        return Ok(Ok(()));
    }
    let repartition = Repartition { session, settings, kv, from, to };
    if repartition.run(&known["config"], known_subscriptions).await? {
        return Ok(Ok(()));
    }
    refuse("another program does so too".to_owned())
}

impl Repartition<'_> {
    /// Starts every subscription behind the last message, with consumers of the new partitions. False if another program was faster.
    async fn run(&self, config: &Value, known: Vec<(String, SubscriptionRecord)>) -> Result<bool> {
        let Self { session, kv, from, to, .. } = *self;
        let last = stream::last(session, &from.stream).await?;
        let mut restarted = Vec::with_capacity(known.len());
        for (durable, record) in known {
            let (record, lease) = self.restart_behind(last, &durable, record).await?;
            restarted.push((durable, record, lease));
        }
        let mut config = config.clone();
        let (old, new) = (json!(from.stream_subject()), json!(to.stream_subject()));
        if let Some(subjects) = config["subjects"].as_array_mut().filter(|subjects| !subjects.contains(&new)) {
            subjects.retain(|subject| *subject != old);
            subjects.push(new);
            api(session, &format!("STREAM.UPDATE.{}", from.stream), &config).await??;
        }
        for (durable, record, lease) in restarted {
            for consumer in record.event_consumers(to, kv, &durable) {
                consumer::ensure(session, &consumer, lease).await?;
            }
        }
        let sequence = layout::recorded(session, kv).await?.map_or(0, |(sequence, _)| sequence);
        let record = kv::write(&PartitionRecord { partitions: to.partitions, after: last });
        Ok(kv.replace(session, &layout::key(kv), sequence, record).await?.is_some())
    }

    /// Removes the event consumers of a subscription, whose next ones start behind a message. Returns the new record, and the `ack_wait` of the
    /// old consumers.
    async fn restart_behind(
        &self,
        last: u64,
        durable: &str,
        record: SubscriptionRecord,
    ) -> Result<(SubscriptionRecord, u64)> {
        let Self { session, kv, .. } = *self;
        let consumers = record.event_consumers(self.from, kv, durable);
        let known = match consumers.first() {
            Some(it) => consumer::config_and_state(session, &it.stream, &it.name).await?,
            None => None,
        };
        let lease = known.and_then(|known| known["config"]["ack_wait"].as_u64());
        let record = SubscriptionRecord { start: last + 1, earlier: Vec::new(), ..record };
        // The record is written first, so that a member that makes the consumers again starts them at the right message.
        kv.put(session, &kv.key(SUBSCRIPTION, durable), kv::write(&record)).await?;
        kv.remove(session, [kv.key(OWNERS, durable)]).await?;
        consumer::remove_all(session, &consumers).await?;
        Ok((record, lease.unwrap_or(nanos(self.settings.lease_time))))
    }
}
