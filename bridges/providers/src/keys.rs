//! The keys of a configuration file. The reading of files, the variables, the template, the JSON Schema and `show` all follow this
//! table. The keys of a back end come from the declaration of its settings in the bridge; only their differences in a file stand here.

use std::time::Duration;

use eventbroker_bridge_kit::settings::{Key, Measure, Settings};

use crate::config::Config;

/// The name of the section in a configuration file.
pub(crate) const SECTION: &str = "event_broker";
/// The beginning of the variables' names: `RESOLVESPEC_EVENT_BROKER_REDIS_HOST` is `event_broker.redis.host`.
pub(crate) const PREFIX: &str = "RESOLVESPEC_EVENT_BROKER_";

const MOMENT: Duration = Duration::from_millis(1);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const DECADE: Duration = Duration::from_secs(3650 * 24 * 3600);
const HUNDRED_MILLION: u64 = 100_000_000;
const QUEUE: u64 = 1 << 24;

/// Settings of the NATS bridge that only a program sets. Its subjects' prefix comes from `nats.subjects`.
const NOT_IN_FILES: [&str; 5] =
    ["nats.subject_prefix", "nats.max_bytes", "nats.dedupe_window", "nats.retention", "nats.idle_expiry"];

/// A table of keys: the path, the field, the bounds, the meaning, and the reason for the bounds.
macro_rules! table {
    ($($path:literal => $($field:ident).+ $(in $bounds:expr)?, $meaning:literal $(because $reason:literal)?;)*) => {
        vec![$(
            Key::new($path, $meaning, |it: &mut Config| &mut it.$($field).+)$(.bounds($bounds))?$(.because($reason))?,
        )*]
    };
}

/// Every key, in the order of the template.
pub(crate) fn keys() -> Vec<Key<Config>> {
    let mut keys = broker();
    keys.extend(section("redis", |it| &mut it.redis));
    insert_after(&mut keys, "redis.url", section("redis", |it| &mut it.redis_server));
    change(&mut keys, "redis.url", |key| {
        key.meaning = "The address, redis://USER:PASSWORD@HOST:PORT/DB, instead of host, port, password and db";
    });

    keys.extend(section("nats", |it| &mut it.nats));
    keys.retain(|key| !NOT_IN_FILES.contains(&&*key.path));
    let subjects = table! { "nats.subjects" => nats_subjects, "The subjects of the stream: one, PREFIX.>"; };
    insert_after(&mut keys, "nats.stream_name", subjects);
    // Zero, which is for ever at the bridge, is no age in a file.
    change(&mut keys, "nats.max_age", |key| key.bounds = Some(between(Measure::Span, MOMENT, DECADE)));

    let url: Vec<Key<Config>> = table! {
        "database.url" => database_url,
            "The address, sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME; required by provider database";
    };
    keys.extend(url.into_iter().map(Key::secret));
    keys.extend(section("database", |it| &mut it.database));
    insert_after(&mut keys, "database.table_name", section("database", |it| &mut it.notifications));
    keys.extend(section("database", |it| &mut it.connections));
    change(&mut keys, "database.retention", |key| key.bounds = Some(between(Measure::Span, MOMENT, DECADE)));
    // SQLite ignores the interval, so a file for SQLite may have one that PostgreSQL refuses.
    change(&mut keys, "database.poll_interval", |key| key.bounds = Some(between(Measure::Span, MOMENT, WEEK)));
    keys
}

/// The name of the variable that overlays a key.
pub(crate) fn variable(key: &Key<Config>) -> String {
    format!("{PREFIX}{}", key.path.replace('.', "_").to_ascii_uppercase())
}

/// The keys of a bridge's settings.
fn section<S: Settings>(name: &str, part: fn(&mut Config) -> &mut S) -> Vec<Key<Config>> {
    S::keys().into_iter().map(|key| key.inside(name, part)).collect()
}

fn insert_after(keys: &mut Vec<Key<Config>>, path: &str, more: Vec<Key<Config>>) {
    let at = keys.iter().position(|key| key.path == path).map_or(keys.len(), |at| at + 1);
    keys.splice(at..at, more);
}

fn change(keys: &mut [Key<Config>], path: &str, change: fn(&mut Key<Config>)) {
    keys.iter_mut().filter(|key| key.path == path).for_each(change);
}

/// Bounds in one measure.
fn between<T>(measure: fn(T) -> Measure, min: T, max: T) -> (Measure, Measure) {
    (measure(min), measure(max))
}

/// The keys of the broker itself.
fn broker() -> Vec<Key<Config>> {
    let whole = |min, max| between(Measure::Whole, min, max);
    let real = |min, max| between(Measure::Real, min, max);
    let span = |min, max| between(Measure::Span, min, max);
    table! {
        "enabled" => enabled, "Whether there is a broker at all";
        "provider" => provider, "Where events are held: memory, redis, nats or database";
        "mode" => broker.mode, "When publish returns: async, when the event is accepted; sync, when it is handled";
        "worker_count" => broker.worker_count in whole(1, 1_024), "Threads that run handlers";
        "max_workers" => broker.max_workers in whole(1, 4_096), "To how many threads the pool may grow; nothing: 4 x worker_count";
        "buffer_size" => broker.buffer_size in whole(1, QUEUE), "Queue capacity of each subscription, in events";
        "overflow" => broker.overflow, "When a queue is full: reject, drop_oldest, drop_newest, or block with a duration (block 100ms)";
        "instance_id" => broker.instance_id in between(Measure::Bytes, 1, 255), "The name of this instance; nothing: the host's name";
        "confirm" => broker.confirm,
            "With a durable back end an event is accepted when that holds it (confirmed), or when this process has it (buffered)";
        "max_waiting" => broker.max_waiting in whole(1, QUEUE), "Retries and events parked behind them, per subscription";
        "max_in_flight" => broker.max_in_flight in whole(1, HUNDRED_MILLION), "Events accepted and not settled";
        "max_dead_letters" => broker.max_dead_letters in whole(1, QUEUE), "Dead letters held";
        "max_payload_bytes" => broker.max_payload_bytes in whole(4, 1 << 30), "The largest payload, in bytes";
        "sync_timeout" => broker.sync_timeout in span(Duration::ZERO, WEEK), "How long publish_sync waits";
        "max_handler_time" => broker.max_handler_time in span(MOMENT, WEEK), "A handler that runs longer is reported as stuck";
        "metrics" => broker.metrics, "Whether events are counted and timed by source and type";
        "shutdown_timeout" => shutdown_timeout in span(Duration::ZERO, WEEK), "How long a broker that is told to stop drains";
        "retry_policy.max_retries" => broker.retry_policy.max_retries in whole(0, u64::from(u32::MAX)),
            "Retries after the first attempt; 0 turns retries off" because "0 turns retries off; below it a handler would never run";
        "retry_policy.initial_delay" => broker.retry_policy.initial_delay in span(Duration::ZERO, WEEK), "Delay before the first retry";
        "retry_policy.max_delay" => broker.retry_policy.max_delay in span(MOMENT, WEEK),
            "No delay is longer" because "0 would retry without any delay";
        "retry_policy.backoff_factor" => broker.retry_policy.backoff_factor in real(1.0, 100.0),
            "Growth of the delay per retry" because "below 1 delays would shrink";
        "retry_policy.jitter" => broker.retry_policy.jitter in real(0.0, 1.0),
            "Random part of each delay, up and down, as a share of it";
        "store.max_events" => broker.max_events in whole(1, HUNDRED_MILLION), "Completed and failed events held in this process";
        "store.max_age" => broker.max_age in span(MOMENT, DECADE), "Age at which they are cleaned up";
        "store.cleanup_interval" => broker.cleanup_interval in span(MOMENT, WEEK), "How often they are cleaned up";
    }
}

/// The known name that is nearest to a misspelt one, if any is near.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |it: &str| strsim::normalized_damerau_levenshtein(&name.to_ascii_lowercase(), &it.to_ascii_lowercase());
    known
        .into_iter()
        .map(|it| (score(it), it))
        .filter(|(score, _)| *score >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|it| it.1)
}
