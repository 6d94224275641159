//! Operations: dead letters, requeues and replays, and the lag of the subscriptions.

use std::sync::Arc;

use bytes::Bytes;
use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::provider::{BackendError, Operator, Replay, Replayed, Tail};
use eventbroker::stats::{BackEndStats, SubscriptionLag};
use eventbroker::{Event, EventId, Pattern, StartPosition};
use eventbroker_bridge_kit::dead_letter::StoredDeadLetter;
use jiff::Timestamp;

use super::locate::{Locator, STEP};
use super::tail::NatsTail;
use crate::consume::REQUEUES;
use crate::jetstream::entry::{MESSAGE_ID, event_of, from_json};
use crate::jetstream::kv::{self, SUBSCRIPTION};
use crate::jetstream::message::{self, PublishAnswer};
use crate::jetstream::{
    ConsumerInfo, Get, KeyValue, Layout, NewMessage, Result, Scan, ScanRequest, Start, StoredMessage, consumer, names,
    scan,
};
use crate::settle::change_status;
use crate::subscriptions::{self, SubscriptionRecord, Subscriptions};
use crate::transport::Session;

/// The largest number of messages that one replay reads. Its cursor goes on behind them.
const REPLAY_SCAN: usize = 20_000;

/// The operator of a provider.
pub(crate) struct NatsOperator {
    pub(crate) locator: Arc<Locator>,
    pub(crate) subscriptions: Arc<Subscriptions>,
}

fn read_dead_letter(entry: &StoredMessage) -> Option<DeadLetter> {
    kv::read::<StoredDeadLetter>(entry)?.into_dead_letter(entry.sequence)
}

async fn dead_letters(session: Session, locator: Arc<Locator>, filter: DeadLetterFilter) -> Result<Vec<DeadLetter>> {
    let Locator { layout, kv, .. } = &*locator;
    let subjects = [kv.dead_letters(&layout.group)];
    let start = Start::At(filter.after.unwrap_or(0) + 1);
    let mut scan = Scan::open(&session, ScanRequest::new(&kv.stream, &subjects, start)).await?;
    let mut found = Vec::new();
    while found.len() < filter.effective_limit() {
        let step = scan.next(&session, STEP).await?;
        if step.is_empty() {
            break;
        }
        found.extend(step.iter().filter_map(read_dead_letter).filter(|letter| filter.matches(letter)));
    }
    scan.close(&session).await;
    found.truncate(filter.effective_limit());
    Ok(found)
}

/// An event that one subscription gets again, by a requeue of its dead letter or by a replay.
struct Requeue<'a> {
    durable: &'a str,
    id: &'a EventId,
    json: Bytes,
    requeues: u32,
    /// The message id, the same in a repeated request.
    once: String,
}

impl Requeue<'_> {
    fn key(&self, kv: &KeyValue) -> String {
        kv.requeue(self.durable, &self.id.to_string())
    }

    /// Records the requeue in the status of the event, and then stores it. The member that handles it removes both. False if it was stored
    /// before.
    async fn store(self, session: &Session, kv: &KeyValue) -> Result<bool> {
        change_status(session, kv, self.id, |status| {
            status.dead.remove(self.durable);
            status.again.insert(self.durable.to_owned());
        })
        .await?;
        let message = NewMessage::new(self.key(kv), self.json);
        let message = message.with(MESSAGE_ID, &self.once)?.with(REQUEUES, &self.requeues.to_string())?;
        match message::publish(session, message).await? {
            PublishAnswer::Duplicate(_) => Ok(false),
            answer => answer.sequence().map(|_| true),
        }
    }
}

/// Requeues a dead letter. False if no dead letter of the group has this number.
async fn requeue(session: &Session, layout: &Layout, kv: &KeyValue, number: u64) -> Result<bool> {
    let Some(entry) = letter(session, layout, kv, number).await? else { return Ok(false) };
    let Some(stored) = kv::read::<StoredDeadLetter>(&entry) else { return Ok(false) };
    let Ok(id) = stored.id.parse::<EventId>() else { return Ok(false) };
    let requeue = Requeue {
        durable: &stored.subscription,
        id: &id,
        json: Bytes::from(stored.event.clone()),
        requeues: stored.requeues + 1,
        once: format!("again {number}"),
    };
    let key = requeue.key(kv);
    let is_new = requeue.store(session, kv).await?;
    // The event may be dead again already, and its new letter have replaced this one.
    let was_there = message::delete(session, &kv.stream, number).await? || is_new;
    if !was_there && kv.get(session, &key).await?.is_none() {
        // Another operator was faster, and the requeue is handled.
        change_status(session, kv, &id, |status| _ = status.again.remove(&stored.subscription)).await?;
    }
    Ok(was_there)
}

/// A dead letter of the group.
async fn letter(session: &Session, layout: &Layout, kv: &KeyValue, number: u64) -> Result<Option<StoredMessage>> {
    let filter = kv.dead_letters(&layout.group);
    let found = message::get(session, &kv.stream, Get::Sequence(number)).await?;
    Ok(found.filter(|entry| names::covers(&filter, &entry.subject)))
}

async fn replay(
    session: Session,
    locator: Arc<Locator>,
    replay: Replay,
    durable: String,
    dry_run: bool,
) -> Result<Replayed> {
    let Locator { layout, kv, .. } = &*locator;
    let found = kv.get(&session, &kv.key(SUBSCRIPTION, &durable)).await?;
    let Some(record) = found.as_ref().and_then(kv::read::<SubscriptionRecord>) else {
        let (name, group) = (&replay.subscription, &layout.group);
        return Err(BackendError::Refused(format!("there is no subscription {name:?} in the group {group:?}")));
    };
    let place_of = async |id: &Option<EventId>| match id {
        Some(id) => locator.place_of(&session, id).await.map(Some),
        None => Ok(None),
    };
    let from = place_of(&replay.after).await?.map_or(1, |after| after + 1);
    let until = place_of(&replay.until).await?.unwrap_or(u64::MAX);
    let consumers = record.event_consumers(layout, kv, &durable);
    let infos = consumer::infos(&session, &consumers).await?;
    let infos: Vec<(Option<u32>, ConsumerInfo)> = consumers.iter().map(|it| it.partition).zip(infos).collect();
    let is_open = |partition: Option<u32>, sequence: u64| {
        infos.iter().find(|(of, _)| *of == partition).is_some_and(|(_, info)| info.is_open(sequence))
    };
    let own = Pattern::parse(&record.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
    let matches = |event: &Event| {
        let event_type = event.event_type().as_str();
        own.matches(event_type)
            && replay.event_type.as_ref().is_none_or(|pattern| pattern.matches(event_type))
            && replay.from.is_none_or(|from| event.created_at() >= from)
            && replay.to.is_none_or(|to| event.created_at() <= to)
    };
    let subjects = layout.subjects(&own, from);
    let mut scan = Scan::open(&session, ScanRequest::new(&layout.stream, &subjects, Start::At(from))).await?;
    let (mut done, mut scanned, mut next) = (0, 0, None);
    'all: while next.is_none() {
        let step = scan.next(&session, STEP).await?;
        if step.is_empty() {
            break;
        }
        scanned += step.len();
        let mut last = None;
        let found = step.into_iter().take_while(|message| message.sequence <= until);
        let events = found.filter_map(|it| Some((it.sequence, event_of(layout, &it)?, it.payload)));
        let events: Vec<(u64, Event, Bytes)> = events.collect();
        let ids: Vec<String> = events.iter().map(|(_, event, _)| event.id().to_string()).collect();
        let again = kv.get_all(&session, ids.iter().map(|id| kv.requeue(&durable, id))).await?;
        let dead = kv.get_all(&session, ids.iter().map(|id| kv.dead_letter(&record.group, &durable, id))).await?;
        for (((sequence, event, json), again), dead) in events.into_iter().zip(again).zip(dead) {
            locator.remember(event.id(), sequence);
            last = Some(event.id().clone());
            if !matches(&event) || again.is_some() || is_open(layout.partition_of(&event), sequence) {
                continue;
            }
            done += 1;
            if !dry_run {
                let letter = dead.as_ref().and_then(kv::read::<StoredDeadLetter>);
                let requeues = letter.map_or(0, |letter| letter.requeues + 1);
                let once = format!("replay {} {durable} {sequence} {requeues}", Timestamp::now());
                Requeue { durable: &durable, id: event.id(), json, requeues, once }.store(&session, kv).await?;
                if let Some(dead) = dead {
                    message::delete(&session, &kv.stream, dead.sequence).await?;
                }
            }
            if done == replay.limit {
                next = last;
                break 'all;
            }
        }
        if scanned >= REPLAY_SCAN {
            next = last;
        }
    }
    scan.close(&session).await;
    Ok(Replayed::new(done as u64, next))
}

/// The backlog of a subscription. A message that was given back and not taken again counts as leased.
async fn lag(
    session: &Session,
    layout: &Layout,
    kv: &KeyValue,
    durable: &str,
    record: &SubscriptionRecord,
) -> Result<SubscriptionLag> {
    let mut lag = SubscriptionLag::default();
    (lag.group, lag.name, lag.pattern) = (record.group.clone(), record.name.clone(), record.pattern.clone());
    lag.instance = Some(record.instance.clone()).filter(|instance| !instance.is_empty());
    let consumers = record.consumers(layout, kv, durable);
    for (consumer, info) in consumers.iter().zip(consumer::infos(session, &consumers).await?) {
        lag.ready += info.waiting;
        lag.leased += info.open;
        if info.waiting > 0 {
            let first = |filter: &String| Get::Next(filter.clone(), info.last_delivered + 1);
            let firsts: Vec<Get> = consumer.filters.iter().map(first).collect();
            let firsts = message::get_all(session, &consumer.stream, &firsts).await?;
            let first = firsts.into_iter().flatten().min_by_key(|message| message.sequence);
            let at = first.and_then(|it| from_json(&it.payload).ok()).map(|event| event.created_at());
            lag.oldest_ready = lag.oldest_ready.into_iter().chain(at).min();
        }
    }
    lag.dead = scan::count(session, &kv.stream, &kv.dead_letters_of(&record.group, durable)).await?;
    Ok(lag)
}

async fn stats(session: Session, locator: Arc<Locator>) -> Result<BackEndStats> {
    let Locator { layout, kv, .. } = &*locator;
    let mut stats = BackEndStats::default();
    let subjects = kv.dead_letters(&layout.group);
    stats.dead_letters = scan::count(&session, &kv.stream, &subjects).await?;
    let filters = [subjects];
    let mut newest = Scan::open(&session, ScanRequest::new(&kv.stream, &filters, Start::Last).headers_only()).await?;
    stats.newest_dead_letter = newest.next(&session, 1).await?.first().map_or(0, |entry| entry.sequence);
    newest.close(&session).await;
    (_, stats.subscriptions_expired) = kv.read(&session, &kv.counter("subscriptions")).await?;
    (_, stats.dead_letters_expired) = kv.read(&session, &kv.counter("dead_letters")).await?;
    for (durable, record) in subscriptions::all(&session, kv).await? {
        stats.subscriptions.push(lag(&session, layout, kv, &durable, &record).await?);
    }
    stats.subscriptions.sort_by(|a, b| (&a.group, &a.name, &a.instance).cmp(&(&b.group, &b.name, &b.instance)));
    Ok(stats)
}

impl Operator for NatsOperator {
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>> {
        let (locator, filter) = (Arc::clone(&self.locator), filter.clone());
        self.locator.runtime.read(move |session| dead_letters(session, locator, filter))
    }

    fn requeue(&self, numbers: &[u64]) -> Result<Vec<u64>> {
        let (locator, numbers) = (Arc::clone(&self.locator), numbers.to_vec());
        self.locator.runtime.call_long(move |session| async move {
            let mut done = Vec::new();
            for number in numbers {
                if requeue(&session, &locator.layout, &locator.kv, number).await? {
                    done.push(number);
                }
            }
            Ok(done)
        })
    }

    fn purge(&self, numbers: &[u64]) -> Result<u64> {
        let (locator, numbers) = (Arc::clone(&self.locator), numbers.to_vec());
        self.locator.runtime.call_long(move |session| async move {
            let mut count = 0;
            for number in numbers {
                if letter(&session, &locator.layout, &locator.kv, number).await?.is_some() {
                    count += u64::from(message::delete(&session, &locator.kv.stream, number).await?);
                }
            }
            Ok(count)
        })
    }

    fn replay(&self, request: &Replay, dry_run: bool) -> Result<Replayed> {
        let own = self.subscriptions.get(&request.subscription).map(|local| local.durable);
        let durable = own.unwrap_or_else(|| self.locator.layout.durable(&request.subscription, ""));
        let (locator, request) = (Arc::clone(&self.locator), request.clone());
        self.locator.runtime.call_long(move |session| replay(session, locator, request, durable, dry_run))
    }

    fn stats(&self) -> Result<BackEndStats> {
        let locator = Arc::clone(&self.locator);
        self.locator.runtime.read(move |session| stats(session, locator))
    }

    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn Tail>> {
        Ok(Box::new(NatsTail::new(&self.locator, pattern, start)?))
    }
}
