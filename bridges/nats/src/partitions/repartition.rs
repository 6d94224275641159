//! Into how many partitions the stream is divided: written down beside it, held against the settings, and changed when nobody uses it and nothing
//! waits, or what waits would be handled out of order.

use std::sync::atomic::Ordering;

use eventbroker::provider::BackendError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::jetstream::consumer::{Progress, progress};
use crate::jetstream::kv::{read, write};
use crate::jetstream::message::{self as js, nanos};
use crate::jetstream::names;
use crate::jetstream::stream::{self, Differs};
use crate::membership::{self as members, FORGET_AFTER};
use crate::provider::backend::Database;
use crate::subscriptions::{self as registry, Info, Leg, OWNERS, SUBSCRIPTION};
use crate::transport::runtime::Session;

/// How a stream is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Division {
    partitions: u32,
    /// The last message that was stored when it was divided in another way.
    after: u64,
}

/// Where that is written down.
fn key(database: &Database) -> String {
    database.state.key("partitions", "number")
}

/// What is written down, and the number of that note.
async fn noted(session: &Session, database: &Database) -> Result<Option<(u64, Division)>, BackendError> {
    if stream::info(session, &database.state.stream).await?.is_none() {
        return Ok(None);
    }
    let found = database.state.get(session, &key(database)).await?;
    Ok(found.and_then(|entry| Some((entry.sequence, read(&entry)?))))
}

/// Into how many partitions the stream is divided, if it is there: one that was made before that was written down, into none.
pub(crate) async fn known(session: &Session, database: &Database) -> Result<Option<u32>, BackendError> {
    if let Some((_, division)) = noted(session, database).await? {
        return Ok(Some(division.partitions));
    }
    let stream = stream::info(session, database.stream()).await?;
    Ok(stream.filter(|stream| !takes(stream, database)).map(|_| 0))
}

/// Whether a stream has the subjects of the settings.
fn takes(stream: &Value, database: &Database) -> bool {
    let wanted = names::of_stream(database.prefix(), database.partitions());
    stream["config"]["subjects"].as_array().is_some_and(|subjects| subjects.contains(&json!(wanted)))
}

/// Whether a stream that is there is divided as the settings say.
pub(crate) async fn check(
    session: &Session,
    database: &Database,
    stream: Option<&Value>,
) -> Result<Differs, BackendError> {
    let known = match (noted(session, database).await?, stream) {
        (Some((_, division)), _) => division.partitions,
        (None, Some(stream)) if database.partitions() > 0 && !takes(stream, database) => 0,
        (None, _) => return Ok(Ok(())),
    };
    Ok(compare(database, known))
}

fn compare(database: &Database, known: u32) -> Differs {
    if known == database.partitions() {
        return Ok(());
    }
    Err(format!(
        "partitions: is {}, but the stream {:?} has {known}; `eventbroker admin repartition` divides it anew",
        database.partitions(),
        database.stream()
    ))
}

/// Writes down what the settings say, if nothing is. Another one may be faster, and say something else.
pub(crate) async fn note(session: &Session, database: &Database) -> Result<Differs, BackendError> {
    loop {
        if let Some((_, known)) = noted(session, database).await? {
            database.divided_after.store(known.after, Ordering::SeqCst);
            return Ok(compare(database, known.partitions));
        }
        let after = database.divided_after.load(Ordering::SeqCst);
        let division = Division { partitions: database.partitions(), after };
        if database.state.replace(session, &key(database), 0, write(&division)).await?.is_some() {
            return Ok(Ok(()));
        }
    }
}

/// Divides the stream of `from` as `to` says. If it is cut off on the way, it can be done again: nothing is lost, and the number comes last.
pub(crate) async fn divide(session: &Session, from: &Database, to: &Database) -> Result<Differs, BackendError> {
    let Some(known) = stream::info(session, from.stream()).await? else { return stream::make(session, to).await };
    stream::make_state(session, from).await?;
    let refused = |problem: String| Ok(Err(format!("the stream {:?} can't be divided: {problem}", from.stream())));
    let used = members::living(session, from, FORGET_AFTER).await?;
    if used > 0 {
        return refused(format!("{used} instances use it, or did so less than ten leases ago"));
    }
    let subscriptions = registry::all(session, from).await?;
    let legs: Vec<Leg> = subscriptions.iter().flat_map(|(unit, info)| info.legs(from, unit)).collect();
    let told = progress(session, &legs).await?;
    let told = legs.iter().zip(told).map(|(leg, told)| (leg, told.unwrap_or_default()));
    let last = stream::last(session, from.stream()).await?;
    // The server may count a message twice, as open and as not delivered, if it was stored while others were being delivered.
    let left = |leg: &Leg, it: &Progress| {
        let counted = it.open + it.waiting;
        if leg.again { counted } else { counted.min(last.saturating_sub(it.floor)) }
    };
    let waits: u64 = told.filter(|(leg, it)| !it.has_ended(leg.until)).map(|(leg, it)| left(leg, &it)).sum();
    if waits > 0 {
        return refused(format!("{waits} deliveries wait"));
    }
    if from.partitions() == to.partitions() {
        return Ok(Ok(()));
    }
    let mut begun = Vec::with_capacity(subscriptions.len());
    for (unit, info) in subscriptions {
        begun.push(begin_behind(session, from, unit, info, last).await?);
    }
    let mut config = known["config"].clone();
    let (old, new) = [from, to].map(|it| json!(names::of_stream(it.prefix(), it.partitions()))).into();
    if let Some(subjects) = config["subjects"].as_array_mut().filter(|subjects| !subjects.contains(&new)) {
        subjects.retain(|subject| *subject != old);
        subjects.push(new);
        js::api(session, &format!("STREAM.UPDATE.{}", from.stream()), &config).await??;
    }
    for (unit, info, lease) in begun {
        for leg in info.legs(to, &unit).iter().filter(|leg| !leg.again) {
            registry::serve_one(session, leg, lease).await?;
        }
    }
    let number = noted(session, from).await?.map_or(0, |(number, _)| number);
    let division = write(&Division { partitions: to.partitions(), after: last });
    match from.state.replace(session, &key(from), number, division).await? {
        Some(_) => Ok(Ok(())),
        None => refused("somebody else does so".to_owned()),
    }
}

/// A subscription goes on behind a message, and its consumers are removed. Returns what is known of it, and for how long they have waited for
/// acknowledgements.
async fn begin_behind(
    session: &Session,
    from: &Database,
    unit: String,
    info: Info,
    last: u64,
) -> Result<(String, Info, u64), BackendError> {
    let legs: Vec<Leg> = info.legs(from, &unit).into_iter().filter(|leg| !leg.again).collect();
    let lease = match legs.last() {
        Some(leg) => registry::lease_of(session, leg).await?,
        None => None,
    };
    let info = Info { start: last + 1, earlier: Vec::new(), ..info };
    // First, so that whoever makes them again does so at the right place.
    from.state.put(session, &from.state.key(SUBSCRIPTION, &unit), write(&info)).await?;
    from.state.forget(session, vec![from.state.key(OWNERS, &unit)]).await?;
    for leg in &legs {
        registry::drop_consumer(session, &leg.stream, &leg.consumer).await?;
    }
    Ok((unit, info, lease.unwrap_or(nanos(from.settings.lease_time))))
}
