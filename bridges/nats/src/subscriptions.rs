//! What is known of subscriptions, and the consumers that serve them. A subscription has one consumer for its events, and one for deliveries
//! that are made again; of a divided stream one for the events of each partition. If its pattern changes, it gets another one for what is stored from then on, and the earlier one serves what was stored
//! before, until all of that is handled.

use std::sync::Arc;

use async_nats::Subject;
use bytes::Bytes;
use eventbroker::Pattern;
use eventbroker::provider::BackendError;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::consume::floors;
use crate::jetstream::consumer::progress;
use crate::jetstream::kv::{read, write};
use crate::jetstream::message::{self as js, CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, nanos};
use crate::jetstream::names;
use crate::jetstream::scan::{self as range, Begin};
use crate::jetstream::stream;
use crate::provider::backend::Database;
use crate::transport::runtime::Session;

/// The kinds of notes about subscriptions.
pub(crate) const SUBSCRIPTION: &str = "subscription";
pub(crate) const USED: &str = "used";
pub(crate) const LEASE: &str = "lease";
pub(crate) const AGAIN: &str = "again";
pub(crate) const DEAD: &str = "dead";
pub(crate) const OWNERS: &str = "owners";

/// Consumers that are made or removed at a time.
const AT_A_TIME: usize = 16;

/// What is known of a subscription.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) pattern: String,
    /// Of a broadcast subscription: the name of the instance that it belongs to.
    pub(crate) instance: String,
    pub(crate) durable: bool,
    /// Of one that goes with its provider: that one.
    pub(crate) owner: String,
    /// When the stream was made whose messages are counted here.
    pub(crate) stream_made: String,
    /// The last message of the stream when it was made.
    pub(crate) after: u64,
    /// The first message that it gets.
    pub(crate) start: u64,
    /// How often its pattern has changed.
    pub(crate) changes: u32,
    /// The first message that the present pattern counts for.
    pub(crate) since: u64,
    /// The patterns before, as long as something is open that they counted for.
    pub(crate) earlier: Vec<Earlier>,
}

/// A pattern that a subscription had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Earlier {
    pub(crate) changes: u32,
    pub(crate) pattern: String,
    pub(crate) since: u64,
    /// The last message that it counts for.
    pub(crate) until: u64,
    pub(crate) start: u64,
}

/// One consumer of a subscription.
#[derive(Debug, Clone)]
pub(crate) struct Leg {
    /// What the subscription is called.
    pub(crate) unit: String,
    pub(crate) again: bool,
    pub(crate) stream: String,
    pub(crate) consumer: String,
    /// What it is for; for what was made again that is everything.
    pub(crate) pattern: Option<Pattern>,
    /// How often the pattern had changed before.
    pub(crate) changes: u32,
    /// The partition that it is for, if the stream is divided: then it has one owner at a time.
    pub(crate) partition: Option<u32>,
    /// What comes behind this is not for it.
    pub(crate) until: u64,
    pub(crate) filter: String,
    start: u64,
    name: Arc<str>,
}

impl Leg {
    fn with_name(mut self) -> Self {
        self.name = format!("{}/{}", self.stream, self.consumer).into();
        self
    }

    /// Tells it from all other consumers, those of the other stream too.
    pub(crate) fn ack_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

impl Info {
    /// Its consumers, those of earlier patterns first; of each pattern there is one for each partition.
    pub(crate) fn legs(&self, database: &Database, unit: &str) -> Vec<Leg> {
        let partitions: Vec<Option<u32>> = match database.partitions() {
            0 => vec![None],
            partitions => (0..partitions).map(Some).collect(),
        };
        let main = |changes: u32, pattern: &str, start: u64, until: u64| {
            let pattern = Pattern::parse(pattern).ok()?;
            let of = |partition: &Option<u32>| Leg {
                unit: unit.to_owned(),
                again: false,
                stream: database.stream().to_owned(),
                consumer: names::consumer(unit, *partition, changes),
                filter: names::filter(&names::partition(database.prefix(), *partition), &pattern),
                pattern: Some(pattern.clone()),
                changes,
                partition: *partition,
                until,
                start,
                name: Arc::default(),
            };
            Some(partitions.iter().map(of).collect::<Vec<Leg>>())
        };
        let again = Leg {
            unit: unit.to_owned(),
            again: true,
            stream: database.state.stream.clone(),
            consumer: unit.to_owned(),
            pattern: None,
            changes: 0,
            partition: None,
            until: u64::MAX,
            filter: format!("{}.>", database.state.key(AGAIN, unit)),
            start: 1,
            name: Arc::default(),
        };
        let earlier = self.earlier.iter().filter_map(|it| main(it.changes, &it.pattern, it.start, it.until));
        let present = main(self.changes, &self.pattern, self.start, u64::MAX);
        let of_events = earlier.chain(present).flatten();
        [again].into_iter().chain(of_events).map(Leg::with_name).collect()
    }

    /// The same in the stream that was made at a time: what is in another one than before was not seen by anybody.
    fn in_stream(self, made: &str) -> Self {
        if self.stream_made == made {
            return self;
        }
        Self { stream_made: made.to_owned(), after: 0, start: 1, since: 0, earlier: Vec::new(), ..self }
    }

    /// The pattern that counts for a message, and how often it had changed before.
    pub(crate) fn pattern_at(&self, sequence: u64) -> Option<(&str, u32)> {
        if sequence >= self.since {
            return Some((&self.pattern, self.changes));
        }
        let of = |it: &&Earlier| it.since <= sequence && sequence <= it.until;
        self.earlier.iter().find(of).map(|it| (it.pattern.as_str(), it.changes))
    }
}

/// All that are known, by what their consumers are called.
pub(crate) async fn all(session: &Session, database: &Database) -> Result<Vec<(String, Info)>, BackendError> {
    let prefix = database.state.key(SUBSCRIPTION, "");
    let known = database.state.all(session, &format!("{SUBSCRIPTION}.>")).await?;
    let unit = |subject: &Subject| subject.as_str().strip_prefix(&prefix).map(str::to_owned);
    Ok(known.iter().filter_map(|entry| Some((unit(&entry.subject)?, read::<Info>(entry)?))).collect())
}

/// Makes a subscription known, or joins those that serve it. Returns what is known of it then, or its pattern if it has another one.
pub(crate) async fn register(
    session: &Session,
    database: &Database,
    unit: &str,
    mut new: Info,
    change: bool,
) -> Result<Result<Info, String>, BackendError> {
    let key = database.state.key(SUBSCRIPTION, unit);
    let made = stream::made(session, database).await?;
    loop {
        let found = database.state.get(session, &key).await?;
        let last = found.as_ref().map_or(0, |entry| entry.sequence);
        let info = match found.as_ref().and_then(read::<Info>) {
            None => {
                new.stream_made.clone_from(&made);
                new.after = stream::last(session, database.stream()).await?;
                if new.start == 0 {
                    new.start = new.after + 1;
                }
                new.clone()
            }
            Some(known) if known.pattern != new.pattern && !change => return Ok(Err(known.pattern)),
            Some(known) => {
                let mut known = known.in_stream(&made);
                if known.pattern != new.pattern {
                    // What is stored already was meant for the pattern of that time.
                    let until = stream::last(session, database.stream()).await?;
                    let Info { changes, pattern, since, start, .. } = known.clone();
                    known.earlier.push(Earlier { changes, pattern, since, until, start });
                    (known.changes, known.since, known.start) = (changes + 1, until + 1, until + 1);
                }
                (known.pattern, known.owner) = (new.pattern.clone(), new.owner.clone());
                known
            }
        };
        let is_same = found.as_ref().and_then(read::<Info>).as_ref() == Some(&info);
        if is_same || database.state.replace(session, &key, last, write(&info)).await?.is_some() {
            serve(session, database, &info.legs(database, unit)).await?;
            return Ok(Ok(info));
        }
    }
}

/// Makes consumers that are not there, for members whose leases last as long as this one's.
pub(crate) async fn serve(session: &Session, database: &Database, legs: &[Leg]) -> Result<(), BackendError> {
    let lease = nanos(database.settings.lease_time);
    for some in legs.chunks(AT_A_TIME) {
        try_join_all(some.iter().map(|leg| serve_one(session, leg, lease))).await?;
    }
    Ok(())
}

/// For how long a consumer waits for acknowledgements, in nanoseconds, if it is there.
pub(crate) async fn lease_of(session: &Session, leg: &Leg) -> Result<Option<u64>, BackendError> {
    match js::api(session, &format!("CONSUMER.INFO.{}.{}", leg.stream, leg.consumer), &Value::Null).await? {
        Ok(known) => Ok(known["config"]["ack_wait"].as_u64()),
        Err(error) if error.code == CONSUMER_NOT_FOUND => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a consumer that is not there. One that is there waits for acknowledgements at least as long from then on.
pub(crate) async fn serve_one(session: &Session, leg: &Leg, lease: u64) -> Result<(), BackendError> {
    let Leg { stream, consumer, filter, start, .. } = leg;
    let known = match js::api(session, &format!("CONSUMER.INFO.{stream}.{consumer}"), &Value::Null).await? {
        Ok(known) => Some(known),
        Err(error) if error.code == CONSUMER_NOT_FOUND => None,
        Err(error) => return Err(error.into()),
    };
    // Whoever has the longest lease has to be able to keep it.
    let waits = known.as_ref().and_then(|known| known["config"]["ack_wait"].as_u64());
    let config = match known {
        Some(_) if waits >= Some(lease) => return Ok(()),
        Some(mut known) => {
            let mut config = known["config"].take();
            config["ack_wait"] = json!(lease);
            config
        }
        None => {
            let mut config = range::begin(Begin::Number(*start));
            config["durable_name"] = json!(consumer);
            config["ack_policy"] = json!("explicit");
            config["ack_wait"] = json!(lease);
            config["max_deliver"] = json!(-1);
            config["max_ack_pending"] = json!(-1);
            config["filter_subject"] = json!(filter);
            config
        }
    };
    let request = json!({ "stream_name": stream, "config": config });
    js::api(session, &format!("CONSUMER.DURABLE.CREATE.{stream}.{consumer}"), &request).await?.map(drop)?;
    Ok(())
}

/// Removes a consumer, if it is there.
pub(crate) async fn drop_consumer(session: &Session, stream: &str, consumer: &str) -> Result<(), BackendError> {
    match js::api(session, &format!("CONSUMER.DELETE.{stream}.{consumer}"), &Value::Null).await? {
        Err(error) if ![CONSUMER_NOT_FOUND, STREAM_NOT_FOUND].contains(&error.code) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Removes a subscription with everything that waits for it. False if it was not known.
pub(crate) async fn forget(session: &Session, database: &Database, unit: &str) -> Result<bool, BackendError> {
    let state = &database.state;
    let key = state.key(SUBSCRIPTION, unit);
    let Some(entry) = state.get(session, &key).await? else { return Ok(false) };
    let info: Info = read(&entry).unwrap_or_default();
    let legs = info.legs(database, unit);
    for some in legs.chunks(AT_A_TIME) {
        try_join_all(some.iter().map(|leg| drop_consumer(session, &leg.stream, &leg.consumer))).await?;
    }
    let group = names::token(&info.group);
    for filter in [
        format!("{}.>", state.key(AGAIN, unit)),
        format!("{}.{group}.{unit}.>", state.key(DEAD, "").trim_end_matches('.')),
        format!("{}.>", state.key(LEASE, unit)),
        format!("{}.>", floors::prefix(database, unit)),
        state.key(USED, unit),
        state.key(OWNERS, unit),
    ] {
        let request = json!({ "filter": filter });
        js::api(session, &format!("STREAM.PURGE.{}", state.stream), &request).await??;
    }
    js::delete(session, &state.stream, entry.sequence).await
}

/// Removes the consumers of earlier patterns for which nothing is open any more.
pub(crate) async fn retire(
    session: &Session,
    database: &Database,
    unit: &str,
    info: &Info,
) -> Result<(), BackendError> {
    if info.earlier.is_empty() {
        return Ok(());
    }
    let legs: Vec<Leg> = info.legs(database, unit).into_iter().filter(|leg| leg.until < u64::MAX).collect();
    let progress = progress(session, &legs).await?;
    let open = legs.iter().zip(progress).filter(|(leg, progress)| !progress.unwrap_or_default().has_ended(leg.until));
    let open: Vec<u32> = open.map(|(leg, _)| leg.changes).collect();
    let gone: Vec<&Leg> = legs.iter().filter(|leg| !open.contains(&leg.changes)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let key = database.state.key(SUBSCRIPTION, unit);
    let is_gone = |it: &Earlier| gone.iter().any(|leg| leg.changes == it.changes);
    database.state.change(session, &key, |known: &mut Info| known.earlier.retain(|it| !is_gone(it))).await?;
    for leg in gone {
        drop_consumer(session, &leg.stream, &leg.consumer).await?;
    }
    Ok(())
}

/// Asks a consumer for messages: at most so many, until a time.
pub(crate) fn pull(leg: &Leg, batch: usize, expires: std::time::Duration) -> (Subject, Bytes) {
    let verb = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", leg.stream, leg.consumer);
    (verb.into(), json!({ "batch": batch, "expires": nanos(expires) }).to_string().into())
}

/// Makes everything again that somebody has removed: streams, notes of what this provider serves, consumers.
pub(crate) async fn revive(session: &Session, database: &Database) -> Result<(), BackendError> {
    if let Err(problem) = stream::make_again(session, database).await? {
        return Err(BackendError::Unavailable(problem));
    }
    let made = stream::made(session, database).await?;
    let served: Vec<_> = database.served.lock().values().cloned().collect();
    for served in served {
        let key = database.state.key(SUBSCRIPTION, &served.unit);
        let found = database.state.get(session, &key).await?;
        let known = found.as_ref().and_then(read::<Info>);
        let last = found.as_ref().map_or(0, |entry| entry.sequence);
        let info = known.clone().unwrap_or_else(|| served.info.clone()).in_stream(&made);
        if known.as_ref() != Some(&info) {
            // If another member is faster, it writes the same.
            database.state.replace(session, &key, last, write(&info)).await?;
        }
        serve(session, database, &info.legs(database, &served.unit)).await?;
        database.learn(&served.unit, info);
    }
    Ok(())
}
