//! Durable consumers: created, updated in place, removed, asked for messages and for their state.

use std::sync::Arc;
use std::time::Duration;

use eventbroker::Pattern;
use eventbroker::provider::BackendError;
use futures_util::future::{join_all, try_join_all};
use serde_json::{Value, json};

use super::api::{ApiError, Result, api, nanos};
use super::names;
use super::scan::Start;
use crate::transport::Session;

/// The largest number of consumers that are created or removed at a time.
const AT_A_TIME: usize = 16;

/// A durable consumer of a subscription.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    /// The durable name of the subscription.
    pub(crate) durable: String,
    /// Whether it delivers requeues and replays, from the bridge's own stream.
    pub(crate) is_requeue: bool,
    pub(crate) stream: String,
    pub(crate) name: String,
    /// The patterns of the subscription, oldest first, each with the last message that it counts for. Empty if every message counts.
    pub(crate) patterns: Vec<(u64, Pattern)>,
    /// The partition that it delivers; its messages have one owner at a time.
    pub(crate) partition: Option<u32>,
    /// The filter subjects. They match more than the patterns while an earlier pattern still counts.
    pub(crate) filters: Vec<String>,
    /// A filter for every message that the consumer could deliver.
    pub(crate) widest: String,
    pub(crate) start: u64,
    /// `STREAM/NAME`, unique among the consumers of both streams.
    pub(crate) id: Arc<str>,
}

impl Consumer {
    /// The pattern that counts for a message, and the last message that it counts for.
    pub(crate) fn pattern_at(&self, sequence: u64) -> Option<&(u64, Pattern)> {
        self.patterns.iter().find(|(until, _)| sequence <= *until)
    }

    /// Sends a pull request: for at most `batch` messages, until it expires.
    pub(crate) fn pull(&self, session: &Session, inbox: &str, batch: usize, expires: Duration) -> Result<(), String> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        let request = json!({ "batch": batch, "expires": nanos(expires) }).to_string();
        session.publish(&subject, inbox, request.as_bytes());
        session.flush()
    }
}

/// The state of a consumer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConsumerInfo {
    /// The sequence of the last delivered message.
    pub(crate) last_delivered: u64,
    /// The number of deliveries, with redeliveries.
    pub(crate) deliveries: u64,
    /// Every message up to this sequence was acknowledged.
    pub(crate) ack_floor: u64,
    /// The number of delivered messages without an acknowledgement.
    pub(crate) open: u64,
    /// The number of messages that were not delivered yet.
    pub(crate) waiting: u64,
}

impl ConsumerInfo {
    fn of(info: &Value) -> Self {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        // The server reports a floor of 0 before the first acknowledgement; no message before the start was ever open.
        let before = number(&info["config"]["opt_start_seq"]).saturating_sub(1);
        Self {
            last_delivered: number(&info["delivered"]["stream_seq"]),
            deliveries: number(&info["delivered"]["consumer_seq"]),
            ack_floor: number(&info["ack_floor"]["stream_seq"]).max(before),
            open: number(&info["num_ack_pending"]),
            waiting: number(&info["num_pending"]),
        }
    }

    /// Whether a message may not be handled yet. A message behind an open one counts as open as well.
    pub(crate) fn is_open(&self, sequence: u64) -> bool {
        sequence > self.last_delivered || (self.open > 0 && sequence > self.ack_floor)
    }

    /// Whether no message up to this one is left.
    pub(crate) fn has_handled(&self, until: u64) -> bool {
        let is_delivered = self.last_delivered >= until || self.waiting == 0;
        is_delivered && (self.open == 0 || self.ack_floor >= until)
    }
}

/// The configuration and the state of a consumer, as the API shows them; `None` if it does not exist.
pub(crate) async fn config_and_state(session: &Session, stream: &str, name: &str) -> Result<Option<Value>> {
    match api(session, &format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null).await? {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The state of a consumer; `None` if it does not exist.
pub(crate) async fn info(session: &Session, consumer: &Consumer) -> Result<Option<ConsumerInfo>> {
    Ok(config_and_state(session, &consumer.stream, &consumer.name).await?.as_ref().map(ConsumerInfo::of))
}

/// The states of consumers; the default for one that does not exist.
pub(crate) async fn infos(
    session: &Session,
    consumers: impl IntoIterator<Item = &Consumer>,
) -> Result<Vec<ConsumerInfo>> {
    let answers = join_all(consumers.into_iter().map(|it| info(session, it))).await;
    answers.into_iter().map(|it| it.map(Option::unwrap_or_default)).collect()
}

/// Creates missing consumers. Existing ones get the filters of the new ones in addition to theirs, and an `ack_wait` of at least `lease`, so that
/// the member with the longest lease can keep it.
pub(crate) async fn ensure_all(session: &Session, consumers: &[Consumer], lease: Duration) -> Result<()> {
    for some in consumers.chunks(AT_A_TIME) {
        try_join_all(some.iter().map(|it| ensure(session, it, nanos(lease)))).await?;
    }
    Ok(())
}

/// [`ensure_all`] for one consumer, with the lease in nanoseconds.
pub(crate) async fn ensure(session: &Session, consumer: &Consumer, lease: u64) -> Result<()> {
    let mut config = match config_and_state(session, &consumer.stream, &consumer.name).await? {
        Some(mut known) => known["config"].take(),
        None => {
            let mut config = Start::At(consumer.start).config();
            config["durable_name"] = json!(consumer.name);
            config["ack_policy"] = json!("explicit");
            config["max_deliver"] = json!(-1);
            config["max_ack_pending"] = json!(-1);
            config
        }
    };
    let filters = filters_of(&config);
    let union = names::union(filters.iter().chain(&consumer.filters).cloned(), &consumer.widest);
    if union == filters && config["ack_wait"].as_u64() >= Some(lease) {
        return Ok(());
    }
    config["ack_wait"] = json!(config["ack_wait"].as_u64().max(Some(lease)));
    set_filters(&mut config, &union);
    store(session, consumer, config).await
}

/// Sets the filters of an existing consumer to its own, without earlier ones.
pub(crate) async fn narrow(session: &Session, consumer: &Consumer) -> Result<()> {
    let Some(mut known) = config_and_state(session, &consumer.stream, &consumer.name).await? else { return Ok(()) };
    let mut config = known["config"].take();
    if filters_of(&config) == consumer.filters {
        return Ok(());
    }
    set_filters(&mut config, &consumer.filters);
    store(session, consumer, config).await
}

fn filters_of(config: &Value) -> Vec<String> {
    let text = |it: &Value| it.as_str().filter(|it| !it.is_empty()).map(str::to_owned);
    let several = config["filter_subjects"].as_array().into_iter().flatten().filter_map(text);
    text(&config["filter_subject"]).into_iter().chain(several).collect()
}

/// Sets the filters in a configuration of a consumer. The server accepts one of both fields.
pub(super) fn set_filters(config: &mut Value, filters: &[String]) {
    if let Some(config) = config.as_object_mut() {
        config.remove("filter_subject");
        config.remove("filter_subjects");
    }
    match filters {
        [] => {}
        [one] => config["filter_subject"] = json!(one),
        several => config["filter_subjects"] = json!(several),
    }
}

async fn store(session: &Session, consumer: &Consumer, config: Value) -> Result<()> {
    let Consumer { stream, name, .. } = consumer;
    let request = json!({ "stream_name": stream, "config": config });
    api(session, &format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), &request).await??;
    Ok(())
}

/// Removes consumers, those that exist.
pub(crate) async fn remove_all(session: &Session, consumers: &[Consumer]) -> Result<()> {
    let remove =
        async |it: &Consumer| match api(session, &format!("CONSUMER.DELETE.{}.{}", it.stream, it.name), &Value::Null)
            .await?
        {
            Err(error) if !ApiError::is_not_found(&error) => Err(BackendError::from(error)),
            _ => Ok(()),
        };
    for some in consumers.chunks(AT_A_TIME) {
        try_join_all(some.iter().map(remove)).await?;
    }
    Ok(())
}
