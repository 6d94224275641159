//! The settings as plain data, with the defaults of the original. How each is read and bounded stands in `keys`.

use std::time::Duration;

pub use eventbroker::Confirm;
use eventbroker::{Mode, Overflow, RetryPolicy};
use serde::{Deserialize, Deserializer, de};

use crate::apply::apply;
use crate::error::ConfigError;
use crate::expand::Variables;
use crate::value::{Secret, Url};
use crate::yaml::Node;

/// The settings of an event broker and its back end: what stands under `event_broker` in a configuration file.
///
/// It is deserialised strictly: every unknown key and every value outside its bounds is an error, and all of them are told
/// at once. `${NAME}`, `${NAME:-default}` and `${NAME:?message}` in a value are expanded from the environment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Whether there is a broker at all. Default false.
    pub enabled: bool,
    /// Where events are held. Default [`ProviderKind::Memory`].
    pub provider: ProviderKind,
    /// What `publish` does. Default [`Mode::Async`].
    pub mode: Mode,
    /// Threads that run handlers. Default 10; 1 to 1,024.
    pub worker_count: usize,
    /// To how many threads the pool may grow. Default 4 × `worker_count`; `worker_count` to 4,096.
    pub max_workers: Option<usize>,
    /// Queue capacity of each subscription, in events. Default 1,000; 1 to 16,777,216.
    pub buffer_size: usize,
    /// What happens when a queue is full, for subscriptions that do not say otherwise. Default [`Overflow::Reject`].
    pub overflow: Overflow,
    /// The name of this instance, at most 255 bytes. Default: the host's name.
    pub instance_id: Option<String>,
    /// When a durable back end's event counts as accepted. Default [`Confirm::Confirmed`].
    pub confirm: Confirm,
    /// Retries and events parked behind them, per subscription. Default 10,000; 1 to 16,777,216.
    pub max_waiting: usize,
    /// Events accepted and not settled. Default 100,000; 1 to 100,000,000.
    pub max_in_flight: usize,
    /// Dead letters held. Default 10,000; 1 to 16,777,216.
    pub max_dead_letters: usize,
    /// The largest payload, in bytes. Default 1 MiB; 4 bytes to 1 GiB.
    pub max_payload_bytes: usize,
    /// How long `publish_sync` waits. Default 30 s; at most 7 days.
    pub sync_timeout: Duration,
    /// A handler that runs longer is reported as stuck. Default 5 min; 1 ms to 7 days.
    pub max_handler_time: Duration,
    /// Whether events are counted and timed by source and type, for [`Broker::metrics`](eventbroker::Broker::metrics). Default true.
    pub metrics: bool,
    /// How long a broker that is told to stop drains: for [`shutdown`](crate::shutdown), and for whoever stops a broker by
    /// himself. Default 30 s; at most 7 days.
    pub shutdown_timeout: Duration,
    /// How failed deliveries are retried.
    pub retry_policy: RetryPolicy,
    /// The store of this process.
    pub store: StoreConfig,
    /// Redis Streams, for `provider: redis`.
    pub redis: RedisConfig,
    /// NATS JetStream, for `provider: nats`.
    pub nats: NatsConfig,
    /// SQLite or PostgreSQL, for `provider: database`.
    pub database: DatabaseConfig,
}

/// Where events are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ProviderKind {
    /// In this process only.
    #[default]
    Memory,
    /// In a Redis stream.
    Redis,
    /// In a NATS JetStream stream.
    Nats,
    /// In a table of SQLite or PostgreSQL.
    Database,
}

/// On what a JetStream stream is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// Files.
    #[default]
    File,
    /// The memory of the server.
    Memory,
}

/// The bounds of the store of this process.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoreConfig {
    /// Completed and failed events held. Default 10,000; 1 to 100,000,000.
    pub max_events: usize,
    /// Age at which they are cleaned up. Default 24 h; 1 ms to 10 years.
    pub max_age: Duration,
    /// How often. Default 5 min; 1 ms to 7 days.
    pub cleanup_interval: Duration,
}

/// How Redis is reached, and the names that are used there.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The stream. Default `resolvespec:events`.
    pub stream_name: String,
    /// The prefix of the names of consumer groups. Default `resolvespec-workers`.
    pub consumer_group: String,
    /// Entries that the stream holds; 0 is no limit. Default 10,000.
    pub max_len: u64,
    /// `redis://USER:PASSWORD@HOST:PORT/DB` or `redis+unix:///PATH`, instead of the next four. Default: none.
    pub url: Url,
    /// The host. Default `localhost`.
    pub host: String,
    /// The port. Default 6379.
    pub port: u16,
    /// The password. Default: none.
    pub password: Secret,
    /// The database's number. Default 0.
    pub db: u32,
    /// The PEM file with the certificates that a server at `rediss://` is checked with. Default: those of the system.
    pub tls_ca_file: Option<String>,
    /// How many replicas must have an event before it counts as accepted. Default 0; at most 100.
    pub min_replicas: u32,
    /// How long they have for that. Default 1 s; 1 ms to 5 s.
    pub replica_timeout: Duration,
    /// How long an event belongs to the member that took it, unless that shows that it is alive. Default 30 s; 100 ms to 7 days.
    pub lease_time: Duration,
    /// How long an id is known after its publish. Default 1 min; 1 s to 7 days.
    pub dedupe_window: Duration,
    /// How long handled entries are kept. Default 7 days; 1 s to 3,650 days.
    pub retention: Duration,
    /// How long a subscription is kept that no instance serves. Default 7 days; 1 s to 3,650 days.
    pub idle_expiry: Duration,
    /// How many entries may wait for one subscription until publishes are refused; 0 is no limit. Default 1,000,000.
    pub max_backlog: u64,
    /// Into how many streams the events are divided, each with one owner; 0 is one stream for all. Default 0; at most 64.
    pub partitions: u32,
    /// Whether the number is taken that is written down with the stream, whatever `partitions` says. Default false.
    pub adopt_partitions: bool,
    /// What is written down of the events' statuses. Default [`KeepStatus::Failures`].
    pub status: KeepStatus,
}

/// The statuses that a back end stores of events, beside what its consumers show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepStatus {
    /// Failures, retries, and the time at which each subscription handled an event.
    Full,
    /// Failures, and the number of retries.
    #[default]
    Failures,
}

/// How NATS is reached, and the names that are used there.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NatsConfig {
    /// The server. Default `nats://localhost:4222`.
    pub url: Url,
    /// The stream. Default `RESOLVESPEC_EVENTS`.
    pub stream_name: String,
    /// The subjects of the stream: one, of the form `PREFIX.>`. Default `events.>`.
    pub subjects: Vec<String>,
    /// On what the stream is stored. Default [`Storage::File`].
    pub storage: Storage,
    /// How long the stream holds an event. Default 24 h.
    pub max_age: Duration,
    /// The prefix of the names of durable consumers. Default `resolvespec-workers`.
    pub consumer_group: String,
    /// Messages that the stream holds; 0 is no limit. Default 0.
    pub max_messages: u64,
    /// On how many servers of a cluster the streams are kept. Default 1; 1 to 5.
    pub replicas: usize,
    /// Whether a stream that is there with other settings is taken as it is. Default false.
    pub adopt_stream: bool,
    /// How long an event belongs to the member that took it, unless that shows that it is alive. Default 30 s; 100 ms to 7 days.
    pub lease_time: Duration,
    /// The user, instead of what the address says. Default: none.
    pub user: Option<String>,
    /// The password of `user`. Default: none.
    pub password: Secret,
    /// A token to log in with. Default: none.
    pub token: Secret,
    /// The seed of an NKey to log in with. Default: none.
    pub nkey: Secret,
    /// A file of credentials to log in with. Default: none.
    pub credentials_file: Option<String>,
    /// The PEM file with the certificates that a server at `tls://` is checked with. Default: those of the system.
    pub tls_ca_file: Option<String>,
    /// Into how many parts the stream is divided, each with one owner; 0 is one stream for all. Default 0; at most 64.
    pub partitions: u32,
    /// Whether the number is taken that is written down beside the stream, whatever `partitions` says. Default false.
    pub adopt_partitions: bool,
    /// What is written down of the events' statuses. Default [`KeepStatus::Failures`].
    pub status: KeepStatus,
    /// Whether the server answers to each acknowledgement, which costs most of the rate, and not only to the last of a batch. Default false.
    pub confirm_acks: bool,
}

/// How the database is reached, and the names that are used there.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// `sqlite:PATH` or `postgres://…`; required by `provider: database`.
    pub url: Url,
    /// The table. Default `events`.
    pub table_name: String,
    /// The channel of notifications. Default `resolvespec_events`.
    pub channel: String,
    /// How often the table is looked at when no notification comes. Default 1 s; 1 ms to 7 days.
    pub poll_interval: Duration,
    /// The prefix of the names of groups. Default `resolvespec-workers`.
    pub consumer_group: String,
    /// How long an event belongs to the member that took it, unless that shows that it is alive. Default 30 s; 100 ms to 7 days.
    pub lease_time: Duration,
    /// How long completed and failed events are kept. Default 7 days; 1 ms to 3,650 days.
    pub retention: Duration,
    /// How long a subscription is kept that no instance serves. Default 7 days; 1 s to 3,650 days.
    pub idle_expiry: Duration,
    /// How many deliveries may wait for one subscription until publishes are refused. Default 1,000,000; at least 1.
    pub max_backlog: u64,
}

impl Default for Config {
    fn default() -> Self {
        let core = eventbroker::Config::default();
        let group = "resolvespec-workers".to_owned();
        Self {
            enabled: false,
            provider: ProviderKind::default(),
            mode: core.mode,
            worker_count: core.worker_count,
            max_workers: core.max_workers,
            buffer_size: core.buffer_size,
            overflow: core.overflow,
            instance_id: None,
            confirm: Confirm::default(),
            max_waiting: core.max_waiting,
            max_in_flight: core.max_in_flight,
            max_dead_letters: core.max_dead_letters,
            max_payload_bytes: core.max_payload_bytes,
            sync_timeout: core.sync_timeout,
            max_handler_time: core.max_handler_time,
            metrics: core.metrics,
            shutdown_timeout: Duration::from_secs(30),
            retry_policy: core.retry_policy,
            store: StoreConfig {
                max_events: core.max_events,
                max_age: core.max_age,
                cleanup_interval: core.cleanup_interval,
            },
            redis: RedisConfig {
                stream_name: "resolvespec:events".to_owned(),
                consumer_group: group.clone(),
                max_len: 10_000,
                url: Url::default(),
                host: "localhost".to_owned(),
                port: 6379,
                password: Secret::default(),
                db: 0,
                tls_ca_file: None,
                min_replicas: 0,
                replica_timeout: Duration::from_secs(1),
                lease_time: Duration::from_secs(30),
                dedupe_window: Duration::from_secs(60),
                retention: Duration::from_secs(7 * 24 * 3600),
                idle_expiry: Duration::from_secs(7 * 24 * 3600),
                max_backlog: 1_000_000,
                partitions: 0,
                adopt_partitions: false,
                status: KeepStatus::default(),
            },
            nats: NatsConfig {
                url: Url::new("nats://localhost:4222"),
                stream_name: "RESOLVESPEC_EVENTS".to_owned(),
                subjects: vec!["events.>".to_owned()],
                storage: Storage::default(),
                max_age: Duration::from_secs(24 * 3600),
                consumer_group: group.clone(),
                max_messages: 0,
                replicas: 1,
                adopt_stream: false,
                lease_time: Duration::from_secs(30),
                user: None,
                password: Secret::default(),
                token: Secret::default(),
                nkey: Secret::default(),
                credentials_file: None,
                tls_ca_file: None,
                partitions: 0,
                adopt_partitions: false,
                status: KeepStatus::default(),
                confirm_acks: false,
            },
            database: DatabaseConfig {
                url: Url::default(),
                table_name: "events".to_owned(),
                channel: "resolvespec_events".to_owned(),
                poll_interval: Duration::from_secs(1),
                consumer_group: group,
                lease_time: Duration::from_secs(30),
                retention: Duration::from_secs(7 * 24 * 3600),
                idle_expiry: Duration::from_secs(7 * 24 * 3600),
                max_backlog: 1_000_000,
            },
        }
    }
}

impl Config {
    /// The settings of the broker itself, for [`BrokerBuilder::config`](eventbroker::BrokerBuilder::config).
    pub fn broker(&self) -> eventbroker::Config {
        let mut core = eventbroker::Config::default();
        core.mode = self.mode;
        core.worker_count = self.worker_count;
        core.max_workers = self.max_workers;
        core.buffer_size = self.buffer_size;
        core.overflow = self.overflow;
        core.max_waiting = self.max_waiting;
        core.retry_policy = self.retry_policy.clone();
        core.max_events = self.store.max_events;
        core.max_in_flight = self.max_in_flight;
        core.max_age = self.store.max_age;
        core.cleanup_interval = self.store.cleanup_interval;
        core.max_dead_letters = self.max_dead_letters;
        core.max_payload_bytes = self.max_payload_bytes;
        core.sync_timeout = self.sync_timeout;
        core.max_handler_time = self.max_handler_time;
        core.confirm = self.confirm;
        core.metrics = self.metrics;
        core.instance_id.clone_from(&self.instance_id);
        core
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Node::from_value(serde_json::Value::deserialize(deserializer)?);
        let mut config = Self::default();
        let (mut problems, mut origins) = (Vec::new(), Default::default());
        apply(&mut config, &node, None, &Variables::of_process(), &mut problems, &mut origins);
        if problems.is_empty() {
            crate::apply::check(&config, None, &origins, &mut problems);
        }
        if problems.is_empty() { Ok(config) } else { Err(de::Error::custom(ConfigError::new(problems))) }
    }
}
