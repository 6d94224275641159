//! What operators ask for: dead letters, deliveries made again, the lag of the subscriptions, a view of the events as they come.

use std::fmt;
use std::sync::Arc;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Subject};
use bytes::Bytes;
use eventbroker::dead_letter::{AttemptError, DeadLetter, DeadLetterFilter};
use eventbroker::provider::{BackendError, Operator, Replay, Replayed, Tail};
use eventbroker::stats::{BackEndStats, SubscriptionLag};
use eventbroker::{Event, EventId, Pattern, StartPosition, Status};
use jiff::Timestamp;

use crate::jetstream::consumer::{self as progress, Progress};
use crate::jetstream::entry::{MESSAGE_ID, event_of, from_json};
use crate::jetstream::kv::{number, read};
use crate::jetstream::message::{self as js, Entry, Outgoing, Stored, Which};
use crate::jetstream::names::token;
use crate::jetstream::scan::{self as range, Begin, Range};
use crate::provider::backend::Database;
use crate::provider::ingest::REQUEUES;
use crate::query::status::note;
use crate::query::store;
use crate::query::tail::NatsTail;
use crate::settle::outcome::Letter;
use crate::subscriptions::{self as registry, AGAIN, DEAD, Info, Leg};
use crate::transport::runtime::Session;

/// Messages of one step.
const STEP: usize = 500;
/// Messages that one replay looks at; its cursor goes on behind them.
const SCAN: usize = 20_000;

pub(crate) struct NatsOperator {
    database: Arc<Database>,
}

impl NatsOperator {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database) }
    }
}

impl fmt::Debug for NatsOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsOperator").field(&self.database).finish()
    }
}

/// What the dead letters of a group are called.
fn letters(database: &Database, group: &str) -> String {
    database.state.key(DEAD, &token(group))
}

fn dead_letter(entry: &Entry) -> Option<DeadLetter> {
    let stored: Letter = read(entry)?;
    let event = from_json(stored.event.as_bytes()).ok()?;
    let error = stored.errors.last().map(|(_, _, message)| message.clone());
    let event = event.with_progress(Status::Failed, stored.attempts.saturating_sub(1), None, None, error);
    let mut letter = DeadLetter::new(entry.sequence, event, stored.name, stored.reason.parse().ok()?);
    letter.attempts = stored.attempts;
    letter.dead_at = stored.dead_at.into();
    let error = |(attempt, at, message): &(u32, Timestamp, String)| AttemptError::new(*attempt, (*at).into(), message);
    letter.errors = stored.errors.iter().map(error).collect();
    letter.first_failed_at = letter.errors.first().map_or(letter.dead_at, |first| first.at);
    letter.requeues = stored.requeues;
    Some(letter)
}

async fn dead_letters(
    session: Session,
    database: Arc<Database>,
    filter: DeadLetterFilter,
) -> Result<Vec<DeadLetter>, BackendError> {
    let subjects = format!("{}.>", letters(&database, database.group()));
    let from = Begin::Number(filter.after.unwrap_or(0) + 1);
    let mut range = Range::open(&session, &database.state.stream, &subjects, from, false).await?;
    let mut found = Vec::new();
    while found.len() < filter.effective_limit() {
        let step = range.next(&session, STEP).await?;
        if step.is_empty() {
            break;
        }
        found.extend(step.iter().filter_map(dead_letter).filter(|letter| filter.matches(letter)));
    }
    range.close(&session).await;
    found.truncate(filter.effective_limit());
    Ok(found)
}

/// What is delivered again, to one subscription.
struct Again<'a> {
    unit: &'a str,
    id: &'a EventId,
    json: Bytes,
    requeues: u32,
    /// What makes a repeated request the same.
    once: String,
}

impl Again<'_> {
    fn key(&self, database: &Database) -> String {
        database.state.key(AGAIN, &format!("{}.{}", self.unit, token(&self.id.to_string())))
    }

    /// Notes it, and then makes the delivery: who handles it takes the note back. False if it was made before.
    async fn make(self, session: &Session, database: &Database) -> Result<bool, BackendError> {
        note(session, database, self.id, |note| {
            note.dead.remove(self.unit);
            note.again.insert(self.unit.to_owned());
        })
        .await?;
        let mut headers = HeaderMap::new();
        for (name, value) in [(MESSAGE_ID, self.once.clone()), (REQUEUES, self.requeues.to_string())] {
            let value = value.parse::<HeaderValue>().map_err(js::unavailable)?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let message = Outgoing { subject: Subject::from(self.key(database)), headers, payload: self.json };
        match js::publish_all(session, vec![message]).await?.pop() {
            Some(Stored::Known(_)) => Ok(false),
            Some(stored) => number(stored).map(|_| true),
            None => Err(js::cut_off()),
        }
    }
}

/// Delivers a dead letter again. False if there is none of that number.
async fn requeue(session: &Session, database: &Database, dead_letter: u64) -> Result<bool, BackendError> {
    let state = &database.state;
    let Some(entry) = letter(session, database, dead_letter).await? else { return Ok(false) };
    let Some(stored) = read::<Letter>(&entry) else { return Ok(false) };
    let Ok(id) = stored.id.parse::<EventId>() else { return Ok(false) };
    let again = Again {
        unit: &stored.unit,
        id: &id,
        json: Bytes::from(stored.event.clone()),
        requeues: stored.requeues + 1,
        once: format!("again {dead_letter}"),
    };
    let key = again.key(database);
    let is_new = again.make(session, database).await?;
    // It may have died again already, and the next letter has taken its place.
    let was_there = js::delete(session, &state.stream, dead_letter).await? || is_new;
    if !was_there && state.get(session, &key).await?.is_none() {
        // Somebody else was faster, and it is handled already.
        note(session, database, &id, |note| _ = note.again.remove(&stored.unit)).await?;
    }
    Ok(was_there)
}

/// A dead letter of this group.
async fn letter(session: &Session, database: &Database, number: u64) -> Result<Option<Entry>, BackendError> {
    let prefix = format!("{}.", letters(database, database.group()));
    let found = js::get(session, &database.state.stream, Which::Number(number)).await?;
    Ok(found.filter(|entry| entry.subject.as_str().starts_with(&prefix)))
}

/// Whether the consumer that an event of the stream was, or is, for is still to handle it.
fn open_at(legs: &[(Leg, Progress)], partition: Option<u32>, sequence: u64) -> bool {
    let is_its = |(leg, _): &&(Leg, Progress)| leg.partition == partition && sequence <= leg.until;
    legs.iter().find(is_its).is_some_and(|(_, progress)| progress.is_open(sequence))
}

async fn replay(
    session: Session,
    database: Arc<Database>,
    replay: Replay,
    unit: String,
    dry_run: bool,
) -> Result<Replayed, BackendError> {
    let state = &database.state;
    let known = state.get(&session, &state.key(registry::SUBSCRIPTION, &unit)).await?.as_ref().and_then(read::<Info>);
    let Some(info) = known else {
        let (name, group) = (&replay.subscription, database.group());
        return Err(BackendError::Refused(format!("there is no subscription {name:?} in the group {group:?}")));
    };
    let after = place_of(&session, &database, replay.after.as_ref()).await?;
    let until = place_of(&session, &database, replay.until.as_ref()).await?.unwrap_or(u64::MAX);
    let legs: Vec<Leg> = info.legs(&database, &unit).into_iter().filter(|leg| !leg.again).collect();
    let progress = progress::progress(&session, &legs).await?;
    let legs: Vec<(Leg, Progress)> =
        legs.into_iter().zip(progress.into_iter().map(Option::unwrap_or_default)).collect();
    let own = Pattern::parse(&info.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
    let matches = |event: &Event| {
        let event_type = event.event_type().as_str();
        own.matches(event_type)
            && replay.event_type.as_ref().is_none_or(|pattern| pattern.matches(event_type))
            && replay.from.is_none_or(|from| event.created_at() >= from)
            && replay.to.is_none_or(|to| event.created_at() <= to)
    };
    let from = after.map_or(1, |after| after + 1);
    let subjects = database.subjects(&own, from);
    let mut range = Range::open(&session, database.stream(), &subjects, Begin::Number(from), false).await?;
    let (mut done, mut scanned, mut next) = (0, 0, None);
    'all: while next.is_none() {
        let step = range.next(&session, STEP).await?;
        if step.is_empty() {
            break;
        }
        scanned += step.len();
        let mut last = None;
        let found = step.into_iter().take_while(|entry| entry.sequence <= until);
        let events =
            found.filter_map(|entry| Some((entry.sequence, event_of(database.prefix(), &entry)?, entry.payload)));
        let events: Vec<(u64, Event, Bytes)> = events.collect();
        let tokens: Vec<String> = events.iter().map(|(_, event, _)| token(&event.id().to_string())).collect();
        let again = tokens.iter().map(|id| state.key(AGAIN, &format!("{unit}.{id}"))).collect();
        let again = state.get_all(&session, again).await?;
        let group = token(&info.group);
        let dead = tokens.iter().map(|id| state.key(DEAD, &format!("{group}.{unit}.{id}"))).collect();
        let dead = state.get_all(&session, dead).await?;
        for (((sequence, event, json), again), dead) in events.into_iter().zip(again).zip(dead) {
            database.recent.remember(event.id(), sequence);
            last = Some(event.id().clone());
            if !matches(&event) || again.is_some() || open_at(&legs, database.partition_of(&event), sequence) {
                continue;
            }
            done += 1;
            if !dry_run {
                let requeues = dead.as_ref().and_then(read::<Letter>).map_or(0, |letter| letter.requeues + 1);
                let once = format!("replay {} {unit} {sequence} {requeues}", Timestamp::now());
                Again { unit: &unit, id: event.id(), json, requeues, once }.make(&session, &database).await?;
                if let Some(dead) = dead {
                    js::delete(&session, &state.stream, dead.sequence).await?;
                }
            }
            if done == replay.limit {
                next = last;
                break 'all;
            }
        }
        if scanned >= SCAN {
            next = last;
        }
    }
    range.close(&session).await;
    Ok(Replayed::new(done as u64, next))
}

async fn place_of(session: &Session, database: &Database, id: Option<&EventId>) -> Result<Option<u64>, BackendError> {
    let Some(id) = id else { return Ok(None) };
    match store::find(session, database, id).await? {
        Some((place, _)) => Ok(Some(place)),
        None => Err(BackendError::Refused(format!("the event {id} is not held"))),
    }
}

/// How much waits for a subscription, and since when. What was given back and not taken again counts as leased.
async fn lag(session: &Session, database: &Database, unit: &str, info: &Info) -> Result<SubscriptionLag, BackendError> {
    let mut lag = SubscriptionLag::default();
    (lag.group, lag.name, lag.pattern) = (info.group.clone(), info.name.clone(), info.pattern.clone());
    lag.instance = Some(info.instance.clone()).filter(|instance| !instance.is_empty());
    let legs = info.legs(database, unit);
    for (leg, progress) in legs.iter().zip(progress::progress(session, &legs).await?) {
        let progress = progress.unwrap_or_default();
        lag.ready += progress.waiting;
        lag.leased += progress.open;
        if progress.waiting > 0 {
            let first = Which::NextOf(leg.filter.clone(), progress.delivered + 1);
            let first = js::get(session, &leg.stream, first).await?;
            let at = first.and_then(|entry| from_json(&entry.payload).ok()).map(|event| event.created_at());
            lag.oldest_ready = match (lag.oldest_ready, at) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
    }
    let dead = format!("{}.{unit}.>", letters(database, &info.group));
    lag.dead = range::count(session, &database.state.stream, &dead).await?;
    Ok(lag)
}

async fn stats(session: Session, database: Arc<Database>) -> Result<BackEndStats, BackendError> {
    let state = &database.state;
    let mut stats = BackEndStats::default();
    let subjects = format!("{}.>", letters(&database, database.group()));
    stats.dead_letters = range::count(&session, &state.stream, &subjects).await?;
    let mut newest = Range::open(&session, &state.stream, &subjects, Begin::Last, true).await?;
    stats.newest_dead_letter = newest.next(&session, 1).await?.first().map_or(0, |entry| entry.sequence);
    newest.close(&session).await;
    let counts = ["subscriptions", "dead_letters"].map(|what| state.key("count", what));
    let counts = state.get_all(&session, counts.to_vec()).await?;
    let mut counts = counts.iter().map(|entry| entry.as_ref().and_then(read::<u64>).unwrap_or(0));
    stats.subscriptions_expired = counts.next().unwrap_or(0);
    stats.dead_letters_expired = counts.next().unwrap_or(0);
    for (unit, info) in registry::all(&session, &database).await? {
        stats.subscriptions.push(lag(&session, &database, &unit, &info).await?);
    }
    stats.subscriptions.sort_by(|a, b| (&a.group, &a.name, &a.instance).cmp(&(&b.group, &b.name, &b.instance)));
    Ok(stats)
}

impl Operator for NatsOperator {
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        let (database, filter) = (Arc::clone(&self.database), filter.clone());
        self.database.runtime.read(move |session| dead_letters(session, database, filter))
    }

    fn requeue(&self, numbers: &[u64]) -> Result<Vec<u64>, BackendError> {
        let (database, numbers) = (Arc::clone(&self.database), numbers.to_vec());
        self.database.runtime.call_long(move |session| async move {
            let mut done = Vec::new();
            for number in numbers {
                if requeue(&session, &database, number).await? {
                    done.push(number);
                }
            }
            Ok(done)
        })
    }

    fn purge(&self, numbers: &[u64]) -> Result<u64, BackendError> {
        let (database, numbers) = (Arc::clone(&self.database), numbers.to_vec());
        self.database.runtime.call_long(move |session| async move {
            let mut count = 0;
            for number in numbers {
                if letter(&session, &database, number).await?.is_some() {
                    count += u64::from(js::delete(&session, &database.state.stream, number).await?);
                }
            }
            Ok(count)
        })
    }

    fn replay(&self, wanted: &Replay, dry_run: bool) -> Result<Replayed, BackendError> {
        let own = self.database.served.lock().get(&*wanted.subscription).map(|served| served.unit.clone());
        let unit = own.unwrap_or_else(|| self.database.unit(&wanted.subscription, ""));
        let (database, wanted) = (Arc::clone(&self.database), wanted.clone());
        self.database.runtime.call_long(move |session| replay(session, database, wanted, unit, dry_run))
    }

    fn stats(&self) -> Result<BackEndStats, BackendError> {
        let database = Arc::clone(&self.database);
        self.database.runtime.read(move |session| stats(session, database))
    }

    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn Tail>, BackendError> {
        Ok(Box::new(NatsTail::new(&self.database, pattern, start)?))
    }
}
