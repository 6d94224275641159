//! A new number of partitions for a stream. Allowed only while no instance uses the stream and no delivery waits, since waiting deliveries would
//! lose their order.

use serde_json::json;

use crate::jetstream::api::{api, nanos};
use crate::jetstream::kv::{self, OWNERS, SUBSCRIPTION};
use crate::jetstream::layout::{self, PartitionRecord};
use crate::jetstream::stream::{self, Accepted};
use crate::jetstream::{Consumer, KeyValue, Layout, Result, ServerClock, consumer};
use crate::membership::{self, DEAD_AFTER};
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

/// Changes the partitions of a stream from one layout to another. An interrupted change can be repeated: no message is lost, and the number is
/// recorded last.
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
    let refuse = |problem: String| Ok(Err(format!("the stream {:?} can't be divided: {problem}", from.stream)));
    let used = membership::living(session, kv, clock, DEAD_AFTER).await?;
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
    let last = stream::last(session, &from.stream).await?;
    let mut restarted = Vec::with_capacity(known_subscriptions.len());
    for (durable, record) in known_subscriptions {
        let (record, lease) = restart_behind(session, settings, from, kv, &durable, record, last).await?;
        restarted.push((durable, record, lease));
    }
    let mut config = known["config"].clone();
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
    match kv.replace(session, &layout::key(kv), sequence, record).await? {
        Some(_) => Ok(Ok(())),
        None => refuse("another program does so too".to_owned()),
    }
}

/// Removes the event consumers of a subscription, whose next ones start behind a message. Returns the new record, and the `ack_wait` of the old
/// consumers.
async fn restart_behind(
    session: &Session,
    settings: &Nats,
    from: &Layout,
    kv: &KeyValue,
    durable: &str,
    record: SubscriptionRecord,
    last: u64,
) -> Result<(SubscriptionRecord, u64)> {
    let consumers = record.event_consumers(from, kv, durable);
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
    Ok((record, lease.unwrap_or(nanos(settings.lease_time))))
}
