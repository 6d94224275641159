//! The two streams: made if they are not there, and held against the settings if they are.

use std::sync::atomic::Ordering;
use std::time::Duration;

use eventbroker::provider::BackendError;
use serde_json::{Value, json};

use crate::jetstream::message::{self as js, STREAM_NOT_FOUND, nanos};
use crate::jetstream::names;
use crate::partitions::repartition as division;
use crate::provider::backend::Database;
use crate::transport::runtime::Session;

/// The server says that a stream is removed before its files are; what is made in their place meanwhile loses its own.
const REMOVAL: Duration = Duration::from_millis(500);

/// What is wrong with a stream that is there: nothing that trying again would mend.
pub(crate) type Differs = Result<(), String>;

/// Makes the streams that are not there, and says how the one of the events differs from the settings.
pub(crate) async fn make(session: &Session, database: &Database) -> Result<Differs, BackendError> {
    let settings = &database.settings;
    let wanted = wanted(database);
    let stream = &settings.stream_name;
    let known = info(session, stream).await?;
    if let Err(problem) = division::check(session, database, known.as_ref()).await? {
        return Ok(Err(problem));
    }
    if let Some(known) = known {
        let problems = if settings.adopt_stream { Vec::new() } else { differences(&wanted, &known["config"]) };
        if !problems.is_empty() {
            return Ok(Err(format!(
                "stream_name: the stream {stream} is there with other settings: {}; change it, or adopt it as it is",
                problems.join("; ")
            )));
        }
        if known["config"]["allow_direct"] != json!(true) {
            let mut config = known["config"].clone();
            config["allow_direct"] = json!(true);
            js::api(session, &format!("STREAM.UPDATE.{stream}"), &config).await??;
        }
    } else {
        create(session, &wanted).await?;
    }
    make_state(session, database).await?;
    division::note(session, database).await
}

/// Makes the stream beside that of the events, if it is not there.
pub(crate) async fn make_state(session: &Session, database: &Database) -> Result<(), BackendError> {
    if info(session, &database.state.stream).await?.is_none() {
        create(session, &of_state(database)).await?;
    }
    Ok(())
}

/// The same for streams that somebody has removed while they were used.
pub(crate) async fn make_again(session: &Session, database: &Database) -> Result<Differs, BackendError> {
    if info(session, database.stream()).await?.is_none() || info(session, &database.state.stream).await?.is_none() {
        Session::pause(REMOVAL).await;
    }
    make(session, database).await
}

async fn create(session: &Session, config: &Value) -> Result<(), BackendError> {
    let name = config["name"].as_str().unwrap_or_default();
    let made = js::api(session, &format!("STREAM.CREATE.{name}"), config).await??;
    learn(session, &made);
    Ok(())
}

/// What the server tells of a stream; nothing if there is none.
pub(crate) async fn info(session: &Session, stream: &str) -> Result<Option<Value>, BackendError> {
    match js::api(session, &format!("STREAM.INFO.{stream}"), &Value::Null).await? {
        Ok(info) => {
            learn(session, &info);
            Ok(Some(info))
        }
        Err(error) if error.code == STREAM_NOT_FOUND => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// If several servers keep a stream, it is [read from that which leads it](crate::jetstream::leader) from now on.
fn learn(session: &Session, info: &Value) {
    if info["config"]["num_replicas"].as_u64().is_some_and(|replicas| replicas > 1) {
        session.is_replicated.store(true, Ordering::SeqCst);
    }
}

/// When the stream of the events was made, which tells it from one of the same name that somebody has removed.
pub(crate) async fn made(session: &Session, database: &Database) -> Result<String, BackendError> {
    let info = info(session, database.stream()).await?.unwrap_or_default();
    Ok(info["created"].as_str().unwrap_or_default().to_owned())
}

/// The number of the last message.
pub(crate) async fn last(session: &Session, stream: &str) -> Result<u64, BackendError> {
    let info = info(session, stream).await?;
    Ok(info.map_or(0, |info| info["state"]["last_seq"].as_u64().unwrap_or(0)))
}

fn wanted(database: &Database) -> Value {
    let settings = &database.settings;
    let bound = |bound: u64| if bound == 0 { -1 } else { bound.min(i64::MAX as u64) as i64 };
    json!({
        "name": settings.stream_name,
        "subjects": [names::of_stream(&settings.subject_prefix, settings.partitions)],
        "retention": "limits",
        "storage": settings.storage.word(),
        "max_consumers": -1,
        "max_msgs": bound(settings.max_messages),
        "max_bytes": bound(settings.max_bytes),
        "max_age": nanos(settings.max_age),
        "max_msg_size": -1,
        "max_msgs_per_subject": -1,
        // What was accepted and not read is never thrown away for something new.
        "discard": "new",
        "num_replicas": settings.replicas,
        "duplicate_window": nanos(settings.known_for()),
        "allow_direct": true,
    })
}

fn of_state(database: &Database) -> Value {
    json!({
        "name": database.state.stream,
        "subjects": [format!("{}.>", database.state.prefix)],
        "retention": "limits",
        "storage": database.settings.storage.word(),
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msg_size": -1,
        "max_msgs_per_subject": 1,
        "discard": "old",
        "num_replicas": database.settings.replicas,
        "allow_direct": true,
    })
}

/// What matters to those who share a stream.
const COMPARED: [&str; 9] = [
    "subjects",
    "retention",
    "storage",
    "max_msgs",
    "max_bytes",
    "max_age",
    "discard",
    "num_replicas",
    "duplicate_window",
];

fn differences(wanted: &Value, known: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for name in COMPARED {
        let (is, wanted) = (&known[name], &wanted[name]);
        // Without a bound there is nothing to discard.
        let is_bounded = ["max_msgs", "max_bytes"].iter().any(|bound| known[*bound].as_i64().is_some_and(|it| it > 0));
        let (no_bound, zero) = (json!(-1), json!(0));
        let is_same = is == wanted || (*wanted == no_bound && *is == zero) || (*wanted == zero && is.is_null());
        if !is_same && (name != "discard" || is_bounded) {
            problems.push(format!("{name} is {is}, not {wanted}"));
        }
    }
    problems
}
