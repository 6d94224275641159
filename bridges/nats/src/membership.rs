//! Which members live, and what a member does about deliveries that were lost on their way to it.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Subject};
use bytes::Bytes;
use eventbroker::provider::BackendError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::jetstream::kv::{number, read, write};
use crate::jetstream::message::{self as js, Ack, Entry, GIVEN_BACK, Outgoing, Stored};
use crate::jetstream::names::token;
use crate::jetstream::scan::{Begin, Range};
use crate::provider::backend::Database;
use crate::subscriptions::{Leg, USED};
use crate::transport::runtime::Session;

/// The kind of the notes about providers that live.
pub(crate) const BOOT: &str = "boot";
/// The kind of the notes about names of instances.
pub(crate) const NAME: &str = "name";
/// A broadcast subscription whose provider shows no sign of life for so many lease times is forgotten.
pub(crate) const FORGET_AFTER: u32 = 10;
/// Messages that are looked at to find what was lost.
const LOOK: usize = 10_000;
/// Messages of one step.
const STEP: usize = 500;
/// How long the server may take to hear what was lost.
const LIMIT: Duration = Duration::from_secs(2);

/// What a provider says of itself, again and again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Sign {
    /// The subscriptions that it serves.
    units: Vec<String>,
    /// So long it is taken to live, in milliseconds.
    lease: u64,
}

/// The note that this provider lives, and what it serves.
pub(crate) fn sign_of_life(database: &Database, units: Vec<String>) -> (String, Vec<u8>) {
    let lease = database.settings.lease_time.as_millis().try_into().unwrap_or(u64::MAX);
    (database.state.key(BOOT, &database.boot), write(&Sign { units, lease }))
}

/// What is known of the name of this instance.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// The number of the note of the name.
    pub(crate) note: Mutex<u64>,
    /// What the last sign of life came to that nobody waited for: whether the name is still this one's.
    pub(crate) said: Mutex<Option<Result<bool, BackendError>>>,
}

/// Shows that this provider is alive, and takes or keeps the name of its instance. False if somebody else has it.
pub(crate) async fn show_life(
    session: &Session,
    database: &Database,
    life: &Life,
    name: &str,
) -> Result<bool, BackendError> {
    let state = &database.state;
    let units: Vec<String> = database.served.lock().values().map(|served| served.unit.clone()).collect();
    let mut notes: Vec<(String, Vec<u8>)> = units.iter().map(|unit| (state.key(USED, unit), Vec::new())).collect();
    notes.push(sign_of_life(database, units));
    let plain = |(key, text): (String, Vec<u8>)| Outgoing {
        subject: Subject::from(key),
        headers: HeaderMap::new(),
        payload: Bytes::from(text),
    };
    let mut messages: Vec<Outgoing> = notes.into_iter().map(plain).collect();
    let key = state.key(NAME, &token(name));
    if !name.is_empty() {
        let mut headers = HeaderMap::new();
        let last = life.note.lock().to_string();
        headers.insert(
            HeaderName::from_static("Nats-Expected-Last-Subject-Sequence"),
            last.parse::<HeaderValue>().map_err(js::unavailable)?,
        );
        let payload = Bytes::from(database.boot.clone());
        messages.push(Outgoing { subject: Subject::from(key.clone()), headers, payload });
    }
    let said = js::publish_all(session, messages).await?.pop();
    if name.is_empty() {
        return Ok(true);
    }
    match said {
        Some(Stored::New(noted) | Stored::Known(noted)) => {
            *life.note.lock() = noted;
            return Ok(true);
        }
        Some(Stored::Overtaken) => {}
        Some(other) => return number(other).map(|_| true),
        None => return Err(js::cut_off()),
    }
    // Somebody has it, or had it; or the answer to an earlier try was lost.
    let found = state.get(session, &key).await?;
    let last = found.as_ref().map_or(0, |entry| entry.sequence);
    if let Some(found) = found.filter(|entry| !entry.payload.is_empty() && entry.payload != database.boot.as_bytes()) {
        let now = database.look_at_clock(session).await?;
        let age = now.duration_since(found.stored_at).unwrap_or_default();
        if age < database.settings.lease_time {
            return Ok(false);
        }
    }
    let taken = state.replace(session, &key, last, database.boot.clone().into_bytes()).await?;
    if let Some(noted) = taken {
        *life.note.lock() = noted;
    }
    Ok(taken.is_some())
}

/// How many providers live, or did so less than so many of their leases ago.
pub(crate) async fn living(session: &Session, database: &Database, leases: u32) -> Result<usize, BackendError> {
    let now = database.look_at_clock(session).await?;
    database.state.forget(session, vec![database.state.key("clock", &database.boot)]).await?;
    let lives = |entry: &Entry| {
        let life: Sign = read(entry).unwrap_or_default();
        let age = now.duration_since(entry.stored_at).unwrap_or_default();
        age < Duration::from_millis(life.lease).saturating_mul(leases)
    };
    Ok(database.state.all(session, &format!("{BOOT}.>")).await?.iter().filter(|entry| lives(entry)).count())
}

/// Whether no other provider that lives serves a subscription.
async fn is_alone(session: &Session, database: &Database, unit: &str) -> Result<bool, BackendError> {
    let now = database.look_at_clock(session).await?;
    let own = database.state.key(BOOT, &database.boot);
    let lives = database.state.all(session, &format!("{BOOT}.>")).await?;
    Ok(!lives.iter().filter(|entry| entry.subject.as_str() != own).any(|entry| {
        let life: Sign = read(entry).unwrap_or_default();
        let age = now.duration_since(entry.stored_at).unwrap_or_default();
        age < Duration::from_millis(life.lease) && life.units.iter().any(|it| it == unit)
    }))
}

/// The messages of a consumer that are here.
fn in_hand(database: &Database, leg: &Leg) -> HashSet<u64> {
    let _all_are_somewhere = database.handing_out.lock();
    let mut in_hand = database.handed_out(leg, |_| true);
    in_hand.extend(database.intake.waiting(&leg.ack_name()));
    in_hand.extend(database.intake.arriving(&leg.ack_name()));
    in_hand
}

/// Takes back what was on its way to this member when its connection was lost, and says what comes back. The server would
/// hand it out again when its lease has ended, behind what comes after it. It does not tell whose a delivery is; so this is done only by who is
/// the only member, or owns the consumer: then it takes back what others have had as well.
pub(crate) async fn recover(session: &Session, database: &Database, leg: &Leg) -> Result<HashSet<u64>, BackendError> {
    let Leg { stream, consumer, .. } = leg;
    let nothing = Ok(HashSet::new());
    let Ok(info) = js::api(session, &format!("CONSUMER.INFO.{stream}.{consumer}"), &Value::Null).await? else {
        return nothing;
    };
    let number = |part: &str, name: &str| info[part][name].as_u64().unwrap_or(0);
    let (floor, delivered) = (number("ack_floor", "stream_seq"), number("delivered", "stream_seq"));
    let open = info["num_ack_pending"].as_u64().unwrap_or(0);
    if open == 0 || (leg.partition.is_none() && !is_alone(session, database, &leg.unit).await?) {
        return nothing;
    }
    // What had come before the answer is here by now, or was settled.
    let in_hand = in_hand(database, leg);
    let settled = database.recent.settled(&leg.unit, &leg.ack_name(), floor, delivered);
    let is_lost = |it: &u64| *it <= delivered && !in_hand.contains(it) && !settled.contains(it);
    let mut range = Range::open(session, stream, &leg.filter, Begin::Number(floor + 1), true).await?;
    let mut lost = HashSet::new();
    let mut seen = 0;
    while seen < LOOK {
        let step = range.next(session, STEP).await?;
        seen += step.len();
        lost.extend(step.iter().map(|entry| entry.sequence).filter(is_lost));
        if step.last().is_none_or(|last| last.sequence >= delivered) {
            break;
        }
    }
    range.close(session).await;
    if lost.is_empty() {
        return nothing;
    }
    // One that was acknowledged already is none of those that the server waits for, and stays so.
    let last = number("delivered", "consumer_seq");
    let back = |sequence: &u64| Ack {
        consumer: leg.ack_name(),
        to: format!("$JS.ACK.{stream}.{consumer}.1.{sequence}.{last}.0.0").into(),
        verb: GIVEN_BACK,
        generation: session.generation,
    };
    let mut in_order: Vec<&u64> = lost.iter().collect();
    in_order.sort_unstable();
    let acks: Vec<Ack> = in_order.into_iter().map(back).collect();
    let told = js::ack_all(session, &acks);
    match Session::within(LIMIT, told).await {
        Some(told) => told.map(|()| lost),
        // It is handed out again when its lease has ended.
        None => nothing,
    }
}
