//! How far consumers have come, as members note it beside the events. A server that is killed at the moment in which it writes down what a
//! consumer has acknowledged may begin that consumer anew, with all that it ever had. What a note says was acknowledged is
//! acknowledged then, and not handled again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventbroker::provider::BackendError;
use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::jetstream::kv::{read, write};
use crate::jetstream::message as js;
use crate::provider::backend::Database;
use crate::subscriptions::Leg;
use crate::transport::runtime::Session;

/// The kind of the notes.
pub(crate) const FLOOR: &str = "floor";

/// To make a consumer takes the server no longer, in milliseconds; to make it again takes more.
const MAKING: u64 = 1_000;
/// How long the last note may take.
const LAST: Duration = Duration::from_secs(1);

/// The last message up to which a consumer has acknowledged everything; 0: there is none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Floor {
    /// When the consumer was made, in milliseconds: one that is made again has its own beginning.
    made: i64,
    sequence: u64,
}

impl Floor {
    /// Whether both are of the same consumer. A server that was started again is off by the time that making it took.
    fn is_of(&self, other: &Self) -> bool {
        self.made.abs_diff(other.made) < MAKING
    }
}

/// What is known of the consumers of this provider.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    noted: Mutex<HashMap<Arc<str>, Floor>>,
    /// What the server has forgotten.
    forgotten: Mutex<HashMap<Arc<str>, u64>>,
    /// Whether it is being noted.
    is_under_way: AtomicBool,
}

impl Floors {
    /// Whether a message was acknowledged, although the server does not know that any more.
    pub(crate) fn is_below(&self, leg: &Leg, sequence: u64) -> bool {
        let forgotten = self.forgotten.lock();
        !forgotten.is_empty() && forgotten.get(&leg.ack_name()).is_some_and(|floor| sequence <= *floor)
    }
}

/// What the notes about the consumers of a subscription begin with.
pub(crate) fn prefix(database: &Database, unit: &str) -> String {
    database.state.key(FLOOR, unit)
}

fn key(database: &Database, leg: &Leg) -> String {
    let which = if leg.again { "again" } else { &leg.consumer };
    format!("{}.{which}", prefix(database, &leg.unit))
}

async fn ask(session: &Session, leg: &Leg) -> Result<Option<Floor>, BackendError> {
    let verb = format!("CONSUMER.INFO.{}.{}", leg.stream, leg.consumer);
    let info = js::api(session, &verb, &Value::Null).await?.ok();
    let floor = |info: Value| Floor {
        made: info["created"].as_str().and_then(|it| it.parse::<Timestamp>().ok()).map_or(0, |it| it.as_millisecond()),
        sequence: info["ack_floor"]["stream_seq"].as_u64().unwrap_or(0),
    };
    Ok(info.map(floor))
}

/// Notes how far the consumers that this provider serves have come, if that is further than it was, without waiting for it.
pub(crate) fn note(database: &Arc<Database>) {
    // As long as the server has not answered to the last one, it is asked no more.
    if database.floors.is_under_way.swap(true, Ordering::SeqCst) {
        return;
    }
    let on_thread = Arc::clone(database);
    database.runtime.post(move |session| {
        let done = Done(on_thread);
        let session = session.ok()?;
        Some(Box::pin(async move {
            if let Err(error) = note_news(&session, &done.0).await {
                tracing::debug!(%error, "it was not noted how far the consumers have come");
            }
        }))
    });
}

/// The same at the end, when somebody waits for it.
pub(crate) fn note_last(database: &Arc<Database>) -> Result<(), BackendError> {
    let on_thread = Arc::clone(database);
    database.runtime.call(move |session| async move {
        // Nothing else depends on it.
        Session::within(LAST, note_news(&session, &on_thread)).await.unwrap_or(Ok(()))
    })
}

/// What is asked has come to an end, whichever.
struct Done(Arc<Database>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.floors.is_under_way.store(false, Ordering::SeqCst);
    }
}

async fn note_news(session: &Session, database: &Database) -> Result<(), BackendError> {
    let legs: Vec<Arc<Leg>> = database.served.lock().values().flat_map(|served| served.legs.clone()).collect();
    let answers = join_all(legs.iter().map(|leg| ask(session, leg))).await;
    let mut news = Vec::new();
    for (leg, answer) in legs.iter().zip(answers) {
        let Some(floor) = answer? else { continue };
        let mut noted = database.floors.noted.lock();
        let known = noted.entry(leg.ack_name()).or_default();
        if floor.sequence > 0 && (!known.is_of(&floor) || known.sequence < floor.sequence) {
            news.push((key(database, leg), write(&floor)));
            *known = floor;
        }
    }
    database.state.put_all(session, news).await.map(drop)
}

/// Sees whether the server has forgotten what a consumer has acknowledged, before any of it is read.
pub(crate) async fn compare(session: &Session, database: &Database, leg: &Leg) -> Result<(), BackendError> {
    let Some(floor) = ask(session, leg).await? else { return Ok(()) };
    let note = database.state.get(session, &key(database, leg)).await?;
    let noted = note.as_ref().and_then(read::<Floor>).filter(|noted| noted.is_of(&floor)).unwrap_or_default();
    let has_forgotten = noted.sequence > floor.sequence;
    if has_forgotten {
        let (consumer, noted) = (&leg.consumer, noted.sequence);
        tracing::warn!(consumer, noted, known = floor.sequence, "the server has forgotten what was acknowledged");
        database.floors.forgotten.lock().insert(leg.ack_name(), noted);
    } else {
        database.floors.forgotten.lock().remove(&leg.ack_name());
    }
    let known = if has_forgotten { noted } else { floor };
    database.floors.noted.lock().insert(leg.ack_name(), known);
    Ok(())
}
