//! The status of an event: it follows from the consumers of the subscriptions that it is for, and from the [record](StatusRecord) of the rest.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use eventbroker::{Event, Pattern, Status};

use crate::jetstream::kv::{self, STATUS};
use crate::jetstream::{Consumer, ConsumerInfo, KeyValue, Layout, Result, StoredMessage, consumer};
use crate::settle::StatusRecord;
use crate::subscriptions::{self, SubscriptionRecord};
use crate::transport::Session;

/// The events of messages, with their statuses.
pub(super) async fn with_statuses(
    session: &Session,
    layout: &Layout,
    kv: &KeyValue,
    found: Vec<(u64, Event)>,
) -> Result<Vec<Event>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let subscriptions = SubscriptionStates::read(session, layout, kv, &found).await?;
    let keys = found.iter().map(|(_, event)| kv.event_key(STATUS, event.id()));
    let records = kv.get_all(session, keys).await?;
    let with_status = |((sequence, event), record): ((u64, Event), Option<StoredMessage>)| {
        let mut record: StatusRecord = record.as_ref().and_then(kv::read).unwrap_or_default();
        record.dead.retain(|durable, _| subscriptions.counts(durable, sequence));
        record.again.retain(|durable| subscriptions.counts(durable, sequence));
        record.done.retain(|durable, _| subscriptions.counts(durable, sequence));
        let status = subscriptions.status(sequence, &event, layout.partition_of(&event), &record);
        let error = record.dead.into_values().next().or(record.error).filter(|_| status == Status::Failed);
        let ended = record.done.into_values().max().filter(|_| status == Status::Completed);
        let ended = ended.map(|ended| SystemTime::UNIX_EPOCH + Duration::from_millis(ended.unsigned_abs()));
        event.with_progress(status, record.retries, None, ended, error)
    };
    Ok(found.into_iter().zip(records).map(with_status).collect())
}

/// A subscription, with its parsed patterns.
struct ParsedSubscription {
    durable: String,
    record: SubscriptionRecord,
    patterns: HashMap<String, Pattern>,
}

/// The subscriptions, and the states of the consumers that matter, by durable name and partition.
struct SubscriptionStates {
    all: Vec<ParsedSubscription>,
    infos: HashMap<(String, Option<u32>), ConsumerInfo>,
}

impl ParsedSubscription {
    fn new((durable, record): (String, SubscriptionRecord)) -> Self {
        let texts = record.earlier.iter().map(|it| &it.pattern).chain([&record.pattern]);
        let patterns = texts.filter_map(|text| Some((text.clone(), Pattern::parse(text).ok()?))).collect();
        Self { durable, record, patterns }
    }

    /// Whether the subscription has a delivery of an event that counts for its status.
    fn delivers(&self, sequence: u64, event: &Event) -> bool {
        let Self { record, patterns, .. } = self;
        let is_its = record.instance.is_empty() || event.instance_id() == Some(&record.instance);
        let pattern = record.pattern_at(sequence).and_then(|text| patterns.get(text));
        let matches = || pattern.is_some_and(|pattern| pattern.matches(event.event_type().as_str()));
        sequence > record.after && is_its && matches()
    }
}

impl SubscriptionStates {
    async fn read(session: &Session, layout: &Layout, kv: &KeyValue, found: &[(u64, Event)]) -> Result<Self> {
        let all: Vec<ParsedSubscription> =
            subscriptions::all(session, kv).await?.into_iter().map(ParsedSubscription::new).collect();
        let mut consumers: Vec<Consumer> = Vec::new();
        for subscription in &all {
            let delivered = found.iter().filter(|(sequence, event)| subscription.delivers(*sequence, event));
            let partitions: BTreeSet<Option<u32>> = delivered.map(|(_, event)| layout.partition_of(event)).collect();
            let of_events = subscription.record.event_consumers(layout, kv, &subscription.durable);
            consumers.extend(of_events.into_iter().filter(|it| partitions.contains(&it.partition)));
        }
        let infos = consumer::infos(session, &consumers).await?;
        let keys = consumers.into_iter().map(|it| (it.durable, it.partition));
        Ok(Self { all, infos: keys.zip(infos).collect() })
    }

    /// Whether the record of a subscription about a message counts: not if a subscription of that name was made after the message. The records of a
    /// removed subscription count.
    fn counts(&self, durable: &str, sequence: u64) -> bool {
        self.all.iter().find(|it| it.durable == durable).is_none_or(|it| sequence > it.record.after)
    }

    fn status(&self, sequence: u64, event: &Event, partition: Option<u32>, record: &StatusRecord) -> Status {
        let local: Option<Status> = record.local.as_deref().and_then(|text| text.parse().ok());
        let mut is_open = matches!(local, Some(Status::Pending | Status::Processing));
        let mut has_begun = local.is_some_and(|it| it != Status::Pending) || !record.dead.is_empty();
        for subscription in &self.all {
            if record.again.contains(&subscription.durable) {
                (is_open, has_begun) = (true, true);
            }
            if subscription.delivers(sequence, event)
                && let Some(info) = self.infos.get(&(subscription.durable.clone(), partition))
            {
                is_open |= info.is_open(sequence);
                has_begun |= sequence <= info.last_delivered;
            }
        }
        match (is_open, has_begun) {
            (true, false) => Status::Pending,
            (true, true) => Status::Processing,
            (false, _) if record.has_failed() => Status::Failed,
            (false, _) => Status::Completed,
        }
    }
}
