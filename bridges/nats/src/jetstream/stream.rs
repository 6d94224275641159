//! The two streams: created if they do not exist, else compared with the settings.

use std::time::Duration;

use eventbroker::provider::BackendError;
use eventbroker_bridge_kit::settings::Setting as _;
use serde_json::{Value, json};

use super::api::{Result, STREAM_NOT_FOUND, api, nanos};
use super::kv::KeyValue;
use super::layout::Layout;
use crate::settings::Nats;
use crate::transport::Session;

/// The server reports a stream as removed before its files are; a stream that is created meanwhile loses its own.
const REMOVAL: Duration = Duration::from_millis(500);

/// Whether an existing stream fits the settings, or the difference, which no other try would mend.
pub(crate) type Accepted = Result<(), String>;

/// Creates the streams that do not exist, and compares existing ones with the settings.
pub(crate) async fn ensure(session: &Session, settings: &Nats, layout: &Layout, kv: &KeyValue) -> Result<Accepted> {
    let expected = config(settings, layout);
    let stream = &layout.stream;
    let known = info(session, stream).await?;
    if let Err(problem) = layout.check(session, kv, known.as_ref()).await? {
        return Ok(Err(problem));
    }
    if let Some(known) = known {
        let problems = if settings.adopt_stream { Vec::new() } else { differences(&expected, &known["config"]) };
        if !problems.is_empty() {
            return Ok(Err(format!(
                "stream_name: the stream {stream} is there with other settings: {}; change it, or adopt it as it is",
                problems.join("; ")
            )));
        }
        if known["config"]["allow_direct"] != json!(true) {
            let mut config = known["config"].clone();
            config["allow_direct"] = json!(true);
            api(session, &format!("STREAM.UPDATE.{stream}"), &config).await??;
        }
    } else {
        create(session, &expected).await?;
    }
    ensure_state(session, settings, kv).await?;
    layout.record(session, kv).await
}

/// Creates the stream of the bridge's state, if it does not exist.
pub(crate) async fn ensure_state(session: &Session, settings: &Nats, kv: &KeyValue) -> Result<()> {
    if info(session, &kv.stream).await?.is_none() {
        create(session, &state_config(settings, kv)).await?;
    }
    Ok(())
}

/// [`ensure`] for streams that were removed while they were in use.
pub(crate) async fn restore(session: &Session, settings: &Nats, layout: &Layout, kv: &KeyValue) -> Result<()> {
    if info(session, &layout.stream).await?.is_none() || info(session, &kv.stream).await?.is_none() {
        Session::pause(REMOVAL).await;
    }
    ensure(session, settings, layout, kv).await?.map_err(BackendError::Unavailable)
}

async fn create(session: &Session, config: &Value) -> Result<()> {
    let name = config["name"].as_str().unwrap_or_default();
    let made = api(session, &format!("STREAM.CREATE.{name}"), config).await??;
    note_replicas(session, &made);
    Ok(())
}

/// The configuration and the state of a stream, as the API shows them; `None` if it does not exist.
pub(crate) async fn info(session: &Session, stream: &str) -> Result<Option<Value>> {
    match api(session, &format!("STREAM.INFO.{stream}"), &Value::Null).await? {
        Ok(info) => {
            note_replicas(session, &info);
            Ok(Some(info))
        }
        Err(error) if error.code == STREAM_NOT_FOUND => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn note_replicas(session: &Session, info: &Value) {
    session.note_replicas(info["config"]["num_replicas"].as_u64().unwrap_or(1));
}

/// The time at which a stream was created, which tells it from an earlier one of the same name.
pub(crate) async fn created_at(session: &Session, stream: &str) -> Result<String> {
    let info = info(session, stream).await?.unwrap_or_default();
    Ok(info["created"].as_str().unwrap_or_default().to_owned())
}

/// A number of a stream's state, such as `first_seq`.
pub(crate) fn state(info: &Value, name: &str) -> u64 {
    info["state"][name].as_u64().unwrap_or(0)
}

/// The sequence of the last message.
pub(crate) async fn last(session: &Session, stream: &str) -> Result<u64> {
    Ok(info(session, stream).await?.map_or(0, |info| state(&info, "last_seq")))
}

fn config(settings: &Nats, layout: &Layout) -> Value {
    let limit = |limit: u64| if limit == 0 { -1 } else { limit.min(i64::MAX as u64) as i64 };
    json!({
        "name": layout.stream,
        "subjects": [layout.stream_subject()],
        "retention": "limits",
        "storage": settings.storage.show(),
        "max_consumers": -1,
        "max_msgs": limit(settings.max_messages),
        "max_bytes": limit(settings.max_bytes),
        "max_age": nanos(settings.max_age),
        "max_msg_size": -1,
        "max_msgs_per_subject": -1,
        // An accepted message is never discarded for a newer one.
        "discard": "new",
        "num_replicas": settings.replicas,
        "duplicate_window": nanos(settings.known_for()),
        "allow_direct": true,
    })
}

fn state_config(settings: &Nats, kv: &KeyValue) -> Value {
    json!({
        "name": kv.stream,
        "subjects": [format!("{}.>", kv.prefix)],
        "retention": "limits",
        "storage": settings.storage.show(),
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msg_size": -1,
        "max_msgs_per_subject": 1,
        "discard": "old",
        "num_replicas": settings.replicas,
        "allow_direct": true,
    })
}

/// The settings that all users of a stream share.
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

fn differences(expected: &Value, known: &Value) -> Vec<String> {
    // Without a limit the stream discards nothing.
    let is_bounded = ["max_msgs", "max_bytes"].iter().any(|limit| known[*limit].as_i64().is_some_and(|it| it > 0));
    let (no_limit, zero) = (json!(-1), json!(0));
    let mut problems = Vec::new();
    for name in COMPARED {
        let (is, expected) = (&known[name], &expected[name]);
        let is_same = is == expected || (*expected == no_limit && *is == zero) || (*expected == zero && is.is_null());
        if !is_same && (name != "discard" || is_bounded) {
            problems.push(format!("{name} is {is}, not {expected}"));
        }
    }
    problems
}
