//! The keys: for each its path, meaning, bounds and field. The reading of files, the variables, the template, the JSON Schema and
//! `show` all follow this table.

use std::time::Duration;

use crate::config::Config;
use crate::value::{Measure, Setting};

/// The name of the section in a configuration file.
pub(crate) const SECTION: &str = "event_broker";
/// What the names of variables begin with: `RESOLVESPEC_EVENT_BROKER_REDIS_HOST` is `event_broker.redis.host`.
pub(crate) const PREFIX: &str = "RESOLVESPEC_EVENT_BROKER_";

/// One setting.
pub(crate) struct Key {
    /// Below `event_broker`, dotted: `redis.host`.
    pub(crate) path: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) bounds: Option<(Measure, Measure)>,
    /// Why the bounds are as they are, for values that the original took.
    pub(crate) reason: &'static str,
    /// The value is hidden wherever it would be shown.
    pub(crate) secret: bool,
    pub(crate) field: fn(&mut Config) -> &mut dyn Setting,
}

impl Key {
    /// The name of the variable that overlays it.
    pub(crate) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// What a value must be: "a whole number, 1 to 1024".
    pub(crate) fn expected(&self, config: &mut Config) -> String {
        let mut text = (self.field)(config).expected();
        match &self.bounds {
            Some((Measure::Bytes(min), Measure::Bytes(max))) => text += &format!(", {min} to {max} bytes long"),
            Some((min, max)) => text += &format!(", {min} to {max}"),
            None => {}
        }
        if !self.reason.is_empty() {
            text += &format!(" ({})", self.reason);
        }
        text
    }

    fn bounded(mut self, min: Measure, max: Measure) -> Self {
        self.bounds = Some((min, max));
        self
    }

    fn whole(self, min: u64, max: u64) -> Self {
        self.bounded(Measure::Whole(min), Measure::Whole(max))
    }

    fn real(self, min: f64, max: f64) -> Self {
        self.bounded(Measure::Real(min), Measure::Real(max))
    }

    fn span(self, min: Duration, max: Duration) -> Self {
        self.bounded(Measure::Span(min), Measure::Span(max))
    }

    fn bytes(self, min: u64, max: u64) -> Self {
        self.bounded(Measure::Bytes(min), Measure::Bytes(max))
    }

    fn because(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self
    }

    fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

fn key(path: &'static str, meaning: &'static str, field: fn(&mut Config) -> &mut dyn Setting) -> Key {
    Key { path, meaning, bounds: None, reason: "", secret: false, field }
}

const MOMENT: Duration = Duration::from_millis(1);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const DECADE: Duration = Duration::from_secs(3650 * 24 * 3600);
const HUNDRED_MILLION: u64 = 100_000_000;
const QUEUE: u64 = 1 << 24;

/// Every key, in the order of the template.
pub(crate) fn keys() -> Vec<Key> {
    vec![
        key("enabled", "Whether there is a broker at all", |it| &mut it.enabled),
        key("provider", "Where events are held: memory, redis, nats or database", |it| &mut it.provider),
        key("mode", "When publish returns: async, when the event is accepted; sync, when it is handled", |it| {
            &mut it.mode
        }),
        key("worker_count", "Threads that run handlers", |it| &mut it.worker_count).whole(1, 1_024),
        key("max_workers", "To how many threads the pool may grow; nothing: 4 x worker_count", |it| {
            &mut it.max_workers
        })
        .whole(1, 4_096),
        key("buffer_size", "Queue capacity of each subscription, in events", |it| &mut it.buffer_size).whole(1, QUEUE),
        key(
            "overflow",
            "When a queue is full: reject, drop_oldest, drop_newest, or block with a duration (block 100ms)",
            |it| &mut it.overflow,
        ),
        key("instance_id", "The name of this instance; nothing: the host's name", |it| &mut it.instance_id)
            .bytes(1, 255),
        key(
            "confirm",
            "With a durable back end an event is accepted when that holds it (confirmed), or when this process has it (buffered)",
            |it| &mut it.confirm,
        ),
        key("max_waiting", "Retries and events parked behind them, per subscription", |it| &mut it.max_waiting)
            .whole(1, QUEUE),
        key("max_in_flight", "Events accepted and not settled", |it| &mut it.max_in_flight).whole(1, HUNDRED_MILLION),
        key("max_dead_letters", "Dead letters held", |it| &mut it.max_dead_letters).whole(1, QUEUE),
        key("max_payload_bytes", "The largest payload, in bytes", |it| &mut it.max_payload_bytes).whole(4, 1 << 30),
        key("sync_timeout", "How long publish_sync waits", |it| &mut it.sync_timeout).span(Duration::ZERO, WEEK),
        key("max_handler_time", "A handler that runs longer is reported as stuck", |it| &mut it.max_handler_time)
            .span(MOMENT, WEEK),
        key("metrics", "Whether events are counted and timed by source and type", |it| &mut it.metrics),
        key("shutdown_timeout", "How long a broker that is told to stop drains", |it| &mut it.shutdown_timeout)
            .span(Duration::ZERO, WEEK),
        key("retry_policy.max_retries", "Retries after the first attempt; 0 turns retries off", |it| {
            &mut it.retry_policy.max_retries
        })
        .whole(0, u64::from(u32::MAX))
        .because("0 turns retries off; below it a handler would never run"),
        key("retry_policy.initial_delay", "Delay before the first retry", |it| &mut it.retry_policy.initial_delay)
            .span(Duration::ZERO, WEEK),
        key("retry_policy.max_delay", "No delay is longer", |it| &mut it.retry_policy.max_delay)
            .span(MOMENT, WEEK)
            .because("0 would retry without any delay"),
        key("retry_policy.backoff_factor", "Growth of the delay per retry", |it| &mut it.retry_policy.backoff_factor)
            .real(1.0, 100.0)
            .because("below 1 delays would shrink"),
        key("retry_policy.jitter", "Random part of each delay, up and down, as a share of it", |it| {
            &mut it.retry_policy.jitter
        })
        .real(0.0, 1.0),
        key("store.max_events", "Completed and failed events held in this process", |it| &mut it.store.max_events)
            .whole(1, HUNDRED_MILLION),
        key("store.max_age", "Age at which they are cleaned up", |it| &mut it.store.max_age).span(MOMENT, DECADE),
        key("store.cleanup_interval", "How often they are cleaned up", |it| &mut it.store.cleanup_interval)
            .span(MOMENT, WEEK),
        key("redis.stream_name", "The stream", |it| &mut it.redis.stream_name).bytes(1, 255),
        key("redis.consumer_group", "The prefix of the names of consumer groups", |it| &mut it.redis.consumer_group)
            .bytes(1, 255),
        key("redis.max_len", "Entries that the stream holds; 0 is no limit", |it| &mut it.redis.max_len)
            .whole(0, i64::MAX as u64),
        key(
            "redis.url",
            "The address, redis://USER:PASSWORD@HOST:PORT/DB, instead of host, port, password and db",
            |it| &mut it.redis.url,
        )
        .secret(),
        key("redis.host", "The host", |it| &mut it.redis.host).bytes(1, 255),
        key("redis.port", "The port", |it| &mut it.redis.port).whole(1, 65_535),
        key("redis.password", "The password", |it| &mut it.redis.password).secret(),
        key("redis.db", "The number of the database", |it| &mut it.redis.db).whole(0, i32::MAX as u64),
        key(
            "redis.tls_ca_file",
            "The PEM file with the certificates that a server at rediss:// is checked with, instead of those of the system",
            |it| &mut it.redis.tls_ca_file,
        )
        .bytes(1, 4_096),
        key("redis.min_replicas", "How many replicas must have an event before it counts as accepted", |it| {
            &mut it.redis.min_replicas
        })
        .whole(0, 100),
        key("redis.replica_timeout", "How long they have for that", |it| &mut it.redis.replica_timeout)
            .span(MOMENT, Duration::from_secs(5)),
        key(
            "redis.lease_time",
            "How long an event belongs to the member that took it, unless that shows that it is alive",
            |it| &mut it.redis.lease_time,
        )
        .span(100 * MOMENT, WEEK),
        key("redis.dedupe_window", "How long an id is known after its publish", |it| &mut it.redis.dedupe_window)
            .span(Duration::from_secs(1), WEEK),
        key("redis.retention", "How long handled entries are kept", |it| &mut it.redis.retention)
            .span(Duration::from_secs(1), DECADE),
        key("redis.idle_expiry", "How long a subscription is kept that no instance serves", |it| {
            &mut it.redis.idle_expiry
        })
        .span(Duration::from_secs(1), DECADE),
        key(
            "redis.max_backlog",
            "How many entries may wait for one subscription until publishes are refused; 0 is no limit",
            |it| &mut it.redis.max_backlog,
        )
        .whole(0, i64::MAX as u64),
        key(
            "redis.partitions",
            "Into how many streams the events are divided, each with one owner; 0 is one stream for all",
            |it| &mut it.redis.partitions,
        )
        .whole(0, 64),
        key(
            "redis.adopt_partitions",
            "Whether the number is taken that is written down with the stream, whatever partitions says",
            |it| &mut it.redis.adopt_partitions,
        ),
        key("redis.status", "The statuses that are stored: full or failures", |it| &mut it.redis.status),
        key("nats.url", "The server, or several separated by commas", |it| &mut it.nats.url).bytes(1, 4_096).secret(),
        key("nats.stream_name", "The stream", |it| &mut it.nats.stream_name).bytes(1, 255),
        key("nats.subjects", "The subjects of the stream: one, PREFIX.>", |it| &mut it.nats.subjects),
        key("nats.storage", "On what the stream is stored: file or memory", |it| &mut it.nats.storage),
        key("nats.max_age", "How long the stream holds an event", |it| &mut it.nats.max_age).span(MOMENT, DECADE),
        key("nats.consumer_group", "The prefix of the names of durable consumers", |it| &mut it.nats.consumer_group)
            .bytes(1, 255),
        key("nats.max_messages", "Messages that the stream holds; 0 is no limit", |it| &mut it.nats.max_messages)
            .whole(0, i64::MAX as u64),
        key("nats.replicas", "On how many servers of a cluster the streams are kept", |it| &mut it.nats.replicas)
            .whole(1, 5),
        key("nats.adopt_stream", "Whether a stream that is there with other settings is taken as it is", |it| {
            &mut it.nats.adopt_stream
        }),
        key(
            "nats.lease_time",
            "How long an event belongs to the member that took it, unless that shows that it is alive",
            |it| &mut it.nats.lease_time,
        )
        .span(100 * MOMENT, WEEK),
        key("nats.user", "The user, instead of what the address says; nothing: that", |it| &mut it.nats.user),
        key("nats.password", "The password of the user", |it| &mut it.nats.password).secret(),
        key("nats.token", "A token to log in with", |it| &mut it.nats.token).secret(),
        key("nats.nkey", "The seed of an NKey to log in with", |it| &mut it.nats.nkey).secret(),
        key("nats.credentials_file", "A file of credentials to log in with; nothing: none", |it| {
            &mut it.nats.credentials_file
        }),
        key(
            "nats.tls_ca_file",
            "The PEM file with the certificates that a server at tls:// is checked with, instead of those of the system",
            |it| &mut it.nats.tls_ca_file,
        )
        .bytes(1, 4_096),
        key(
            "nats.partitions",
            "Into how many parts the stream is divided, each with one owner; 0 is one stream for all",
            |it| &mut it.nats.partitions,
        )
        .whole(0, 64),
        key(
            "nats.adopt_partitions",
            "Whether the number is taken that is written down beside the stream, whatever partitions says",
            |it| &mut it.nats.adopt_partitions,
        ),
        key("nats.status", "The statuses that are stored: full or failures", |it| &mut it.nats.status),
        key(
            "nats.confirm_acks",
            "Whether the server answers to each acknowledgement, which costs most of the rate, and not only to the last of a batch",
            |it| &mut it.nats.confirm_acks,
        ),
        key(
            "database.url",
            "The address, sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME; required by provider database",
            |it| &mut it.database.url,
        )
        .secret(),
        key("database.table_name", "The table", |it| &mut it.database.table_name).bytes(1, 63),
        key("database.channel", "The channel of notifications", |it| &mut it.database.channel).bytes(1, 63),
        key("database.poll_interval", "How often the table is looked at when no notification comes", |it| {
            &mut it.database.poll_interval
        })
        .span(MOMENT, WEEK),
        key("database.consumer_group", "The prefix of the names of groups", |it| &mut it.database.consumer_group)
            .bytes(1, 255),
        key(
            "database.lease_time",
            "How long an event belongs to the member that took it, unless that shows that it is alive",
            |it| &mut it.database.lease_time,
        )
        .span(100 * MOMENT, WEEK),
        key("database.retention", "How long completed and failed events are kept", |it| &mut it.database.retention)
            .span(MOMENT, DECADE),
        key("database.idle_expiry", "How long a subscription is kept that no instance serves", |it| {
            &mut it.database.idle_expiry
        })
        .span(Duration::from_secs(1), DECADE),
        key(
            "database.max_backlog",
            "How many deliveries may wait for one subscription until publishes are refused",
            |it| &mut it.database.max_backlog,
        )
        .whole(1, i64::MAX as u64),
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
