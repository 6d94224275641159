//! The keys of a configuration file. The reading of files, the variables, the template, the JSON Schema and `show` all follow this
//! table. The keys of a back end come from the declaration of its settings in the bridge; only their differences in a file stand here.

use std::time::Duration;

use eventbroker_bridge_kit::settings::{Key, Measure, Setting, Settings};

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
    let subjects = key("nats.subjects", "The subjects of the stream: one, PREFIX.>", |it| &mut it.nats_subjects);
    insert_after(&mut keys, "nats.stream_name", vec![subjects]);
    // Zero, which is for ever at the bridge, is no age in a file.
    change(&mut keys, "nats.max_age", |key| key.bounds = Some(span(MOMENT, DECADE)));

    keys.push(
        key(
            "database.url",
            "The address, sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME; required by provider database",
            |it| &mut it.database_url,
        )
        .secret(),
    );
    keys.extend(section("database", |it| &mut it.database));
    insert_after(&mut keys, "database.table_name", section("database", |it| &mut it.notifications));
    change(&mut keys, "database.retention", |key| key.bounds = Some(span(MOMENT, DECADE)));
    // SQLite ignores the interval, so a file for SQLite may have one that PostgreSQL refuses.
    change(&mut keys, "database.poll_interval", |key| key.bounds = Some(span(MOMENT, WEEK)));
    keys
}

/// The name of the variable that overlays a key.
pub(crate) fn variable(key: &Key<Config>) -> String {
    format!("{PREFIX}{}", key.path.replace('.', "_").to_ascii_uppercase())
}

/// A key of the broker itself, or of a file alone.
fn key(path: &str, meaning: &'static str, field: fn(&mut Config) -> &mut dyn Setting) -> Key<Config> {
    Key::new(path, meaning, field)
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

fn whole(min: u64, max: u64) -> (Measure, Measure) {
    (Measure::Whole(min), Measure::Whole(max))
}

fn real(min: f64, max: f64) -> (Measure, Measure) {
    (Measure::Real(min), Measure::Real(max))
}

fn span(min: Duration, max: Duration) -> (Measure, Measure) {
    (Measure::Span(min), Measure::Span(max))
}

fn bytes(min: u64, max: u64) -> (Measure, Measure) {
    (Measure::Bytes(min), Measure::Bytes(max))
}

/// The keys of the broker itself.
fn broker() -> Vec<Key<Config>> {
    vec![
        key("enabled", "Whether there is a broker at all", |it| &mut it.enabled),
        key("provider", "Where events are held: memory, redis, nats or database", |it| &mut it.provider),
        key("mode", "When publish returns: async, when the event is accepted; sync, when it is handled", |it| {
            &mut it.broker.mode
        }),
        key("worker_count", "Threads that run handlers", |it| &mut it.broker.worker_count).bounds(whole(1, 1_024)),
        key("max_workers", "To how many threads the pool may grow; nothing: 4 x worker_count", |it| {
            &mut it.broker.max_workers
        })
        .bounds(whole(1, 4_096)),
        key("buffer_size", "Queue capacity of each subscription, in events", |it| &mut it.broker.buffer_size)
            .bounds(whole(1, QUEUE)),
        key(
            "overflow",
            "When a queue is full: reject, drop_oldest, drop_newest, or block with a duration (block 100ms)",
            |it| &mut it.broker.overflow,
        ),
        key("instance_id", "The name of this instance; nothing: the host's name", |it| &mut it.broker.instance_id)
            .bounds(bytes(1, 255)),
        key(
            "confirm",
            "With a durable back end an event is accepted when that holds it (confirmed), or when this process has it (buffered)",
            |it| &mut it.broker.confirm,
        ),
        key("max_waiting", "Retries and events parked behind them, per subscription", |it| &mut it.broker.max_waiting)
            .bounds(whole(1, QUEUE)),
        key("max_in_flight", "Events accepted and not settled", |it| &mut it.broker.max_in_flight)
            .bounds(whole(1, HUNDRED_MILLION)),
        key("max_dead_letters", "Dead letters held", |it| &mut it.broker.max_dead_letters).bounds(whole(1, QUEUE)),
        key("max_payload_bytes", "The largest payload, in bytes", |it| &mut it.broker.max_payload_bytes)
            .bounds(whole(4, 1 << 30)),
        key("sync_timeout", "How long publish_sync waits", |it| &mut it.broker.sync_timeout)
            .bounds(span(Duration::ZERO, WEEK)),
        key("max_handler_time", "A handler that runs longer is reported as stuck", |it| {
            &mut it.broker.max_handler_time
        })
        .bounds(span(MOMENT, WEEK)),
        key("metrics", "Whether events are counted and timed by source and type", |it| &mut it.broker.metrics),
        key("shutdown_timeout", "How long a broker that is told to stop drains", |it| &mut it.shutdown_timeout)
            .bounds(span(Duration::ZERO, WEEK)),
        key("retry_policy.max_retries", "Retries after the first attempt; 0 turns retries off", |it| {
            &mut it.broker.retry_policy.max_retries
        })
        .bounds(whole(0, u64::from(u32::MAX)))
        .because("0 turns retries off; below it a handler would never run"),
        key("retry_policy.initial_delay", "Delay before the first retry", |it| {
            &mut it.broker.retry_policy.initial_delay
        })
        .bounds(span(Duration::ZERO, WEEK)),
        key("retry_policy.max_delay", "No delay is longer", |it| &mut it.broker.retry_policy.max_delay)
            .bounds(span(MOMENT, WEEK))
            .because("0 would retry without any delay"),
        key("retry_policy.backoff_factor", "Growth of the delay per retry", |it| {
            &mut it.broker.retry_policy.backoff_factor
        })
        .bounds(real(1.0, 100.0))
        .because("below 1 delays would shrink"),
        key("retry_policy.jitter", "Random part of each delay, up and down, as a share of it", |it| {
            &mut it.broker.retry_policy.jitter
        })
        .bounds(real(0.0, 1.0)),
        key("store.max_events", "Completed and failed events held in this process", |it| &mut it.broker.max_events)
            .bounds(whole(1, HUNDRED_MILLION)),
        key("store.max_age", "Age at which they are cleaned up", |it| &mut it.broker.max_age)
            .bounds(span(MOMENT, DECADE)),
        key("store.cleanup_interval", "How often they are cleaned up", |it| &mut it.broker.cleanup_interval)
            .bounds(span(MOMENT, WEEK)),
    ]
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
