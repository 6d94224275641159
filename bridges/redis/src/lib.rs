//! Durable events for [`eventbroker`] across instances, on Redis Streams.
//!
//! Every instance writes its events into one stream and reads them from a consumer group for each of its subscriptions. What a publish
//! has accepted is an entry of the stream; it is acknowledged when its handler has settled. The stream, its entries and the group names are
//! those of ResolveSpec's event broker, so that both can share a stream.
//!
//! ```no_run
//! use eventbroker::{Broker, Event, Source, SubscribeOptions};
//! use eventbroker_redis::Redis;
//!
//! let broker = Broker::builder().provider(Redis::new("redis://localhost").open()?).start()?;
//! broker.subscribe_with(SubscribeOptions::new("shop.orders.*").name("mailer"), |delivery| {
//!     println!("{}", delivery.event().id());
//! })?;
//! broker.publish(Event::builder(Source::System, "shop.orders.create").build()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is kept in which key, the rights that a user needs, and what survives what, is in `docs/redis.md`. The floor is Redis 7.0.
//!
//! Members of a group compete for the stream, so the events of a key are in order within an instance, and not across instances.

mod consume;
mod housekeeping;
mod partitions;
mod publish;
mod query;
mod scripts;
mod settle;
mod subscriptions;
mod transport;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::{BackendError, Capabilities, Provider};

use partitions::repartition;
use transport::link::{Database, Link, check_eviction};

/// The settings of a provider on a Redis server.
#[derive(Clone)]
#[must_use]
pub struct Redis {
    url: String,
    tls_ca_file: Option<PathBuf>,
    stream_name: String,
    consumer_group: String,
    lease_time: Duration,
    dedupe_window: Duration,
    retention: Duration,
    max_len: u64,
    idle_expiry: Duration,
    min_replicas: u32,
    replica_timeout: Duration,
    partitions: u32,
    adopt_partitions: bool,
    max_backlog: u64,
    status: Status,
    cloud_events: bool,
}

/// What is written down of the events' statuses, beside what the streams tell by themselves: what is open, and what was handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Also when each subscription has handled an event: a key per event.
    Full,
    /// What failed, and how often it was retried.
    #[default]
    Failures,
    /// Nothing: what failed for good is told as completed, and found among the dead letters.
    Off,
}

/// Why a server could not be used. Shows no password.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its bounds: which, and which bounds.
    Setting(String),
    /// Redis could not be reached, or has refused: its words.
    Server(String),
}

impl Redis {
    /// The server at `url`, `redis://USER:PASSWORD@HOST:PORT/DATABASE` or `redis+unix:///PATH?db=0`, with every default. `rediss://` is
    /// the same over TLS (feature `tls`); the server's certificate is checked, name included.
    pub fn new(url: impl Into<String>) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            url: url.into(),
            tls_ca_file: None,
            stream_name: "resolvespec:events".to_owned(),
            consumer_group: "resolvespec-workers".to_owned(),
            lease_time: Duration::from_secs(30),
            dedupe_window: Duration::from_secs(60),
            retention: 7 * DAY,
            max_len: 10_000,
            idle_expiry: 7 * DAY,
            min_replicas: 0,
            replica_timeout: Duration::from_secs(1),
            partitions: 0,
            adopt_partitions: false,
            max_backlog: 1_000_000,
            status: Status::default(),
            cloud_events: false,
        }
    }

    /// The PEM file with the certificates that a server's at `rediss://` is checked with. Default: those of the system.
    pub fn tls_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls_ca_file = Some(path.into());
        self
    }

    /// The stream, which is also what every other key begins with. Default `resolvespec:events`; 1 to 255 bytes.
    pub fn stream_name(mut self, name: impl Into<String>) -> Self {
        self.stream_name = name.into();
        self
    }

    /// The group that this instance's subscriptions belong to: of the members of a group that have a subscription of the same
    /// name, one handles each event. Default `resolvespec-workers`; 1 to 255 bytes.
    pub fn consumer_group(mut self, group: impl Into<String>) -> Self {
        self.consumer_group = group.into();
        self
    }

    /// How long an event belongs to the member that took it, unless that shows that it is alive, which it does each third of
    /// this. So long it takes until the events of a member that died are handled by another one. A retry that waits for longer does so at the
    /// server, for any member, up to a second late; not if its event has a key or its subscription is
    /// [ordered](eventbroker::SubscribeOptions::ordered). Default 30 s; at least 100 ms.
    pub fn lease_time(mut self, time: Duration) -> Self {
        self.lease_time = time;
        self
    }

    /// How long an id is known after its publish: so long the same event again is a duplicate, and twice that at most. Default 60 s; at
    /// least 1 s.
    pub fn dedupe_window(mut self, window: Duration) -> Self {
        self.dedupe_window = window;
        self
    }

    /// How long handled entries are kept, and what is known of statuses. What a subscription has not acknowledged stays, however old it
    /// is. Default 7 days; at least 1 s.
    pub fn retention(mut self, time: Duration) -> Self {
        self.retention = time;
        self
    }

    /// How many handled entries are kept; 0 is no limit. What a subscription has not acknowledged stays, however much it is. Default
    /// 10,000.
    pub fn max_len(mut self, entries: u64) -> Self {
        self.max_len = entries;
        self
    }

    /// How long a subscription is kept that no instance serves: then it is removed with what waits for it, logged and counted. Default 7
    /// days; at least 1 s and the lease time.
    pub fn idle_expiry(mut self, time: Duration) -> Self {
        self.idle_expiry = time;
        self
    }

    /// How many replicas must have an event before it counts as accepted, so that it is still there when one of them takes over from the
    /// server. Until so many have it, publishes wait, and their outcome is unknown at last. Default 0; at most 100.
    pub fn min_replicas(mut self, replicas: u32) -> Self {
        self.min_replicas = replicas;
        self
    }

    /// How long [`min_replicas`](Self::min_replicas) have to receive a batch of events; then it is sent again. Default 1 s; 1 ms to 5 s.
    pub fn replica_timeout(mut self, time: Duration) -> Self {
        self.replica_timeout = time;
        self
    }

    /// Into how many streams the events are divided, by their [key](eventbroker::Event::key), or by their id if they have none. Each of
    /// them is handled by one member of a subscription at a time, so the events of a key are in order across instances; members
    /// that come and go share them out again. 0 is the one stream of ResolveSpec, for which members compete. All instances must say
    /// the same, which is written down with the stream: another number is an error until the stream was
    /// [divided anew](Self::repartition). Default 0; at most 64.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Whether the number of partitions is taken that is written down with the stream, if there is one: for tools. Default false.
    pub fn adopt_partitions(mut self, adopt: bool) -> Self {
        self.adopt_partitions = adopt;
        self
    }

    /// How many entries may wait for a subscription, read or not, and retries at the server: while there are more, a publish is refused as
    /// full. It is measured once a second. What its pattern does not match counts until a member has read it. 0 is no limit. Default
    /// 1,000,000.
    pub fn max_backlog(mut self, entries: u64) -> Self {
        self.max_backlog = entries;
        self
    }

    /// What is written down of the events' statuses. Default [`Failures`](Status::Failures).
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Whether the entries of this instance are also CloudEvents 1.0, for others who read the stream: beside their `id`, `type` and `source`
    /// they have the fields `specversion`, `time`, `subject` (`SCHEMA.ENTITY`), `partitionkey`, `datacontenttype` and `data`, the last
    /// of which stores the payload a second time. Default false.
    pub fn cloud_events(mut self, wanted: bool) -> Self {
        self.cloud_events = wanted;
        self
    }

    /// Connects, and returns a provider for one broker. Waits at most 10 s for a server that does not answer.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, the server can't be reached or refuses, or it may evict keys.
    pub fn open(&self) -> Result<Provider, OpenError> {
        self.check()?;
        if self.adopt_partitions {
            let known = self.known_partitions()?.unwrap_or(self.partitions);
            return self.clone().adopt_partitions(false).partitions(known).open();
        }
        let database = Arc::new(Database::new(self)?);
        let mut link = Link::new(&database);
        link.call(check_eviction).map_err(OpenError::of)?.map_err(OpenError::Setting)?;
        self.check_partitions(&mut link)?;
        let capabilities = Capabilities::none().with_durability().with_instances().with_groups().with_broadcast();
        let capabilities = capabilities.with_start_positions().with_durable_broadcast().with_replay().with_tail();
        let capabilities = capabilities.with_deferred_retries();
        let capabilities = match self.partitions {
            0 => capabilities.with_order_per_subscription(),
            _ => capabilities.with_order_per_key(),
        };
        Ok(Provider::new("redis", capabilities)
            .with_store(Arc::new(query::store::RedisStore::new(&database)))
            .with_operator(Arc::new(query::operator::RedisOperator::new(&database)))
            .with_mirror(Box::new(publish::mirror::RedisMirror::new(&database)))
            .with_ingest(
                Box::new(consume::ingest::RedisIngest::new(&database)),
                Box::new(settle::settler::RedisSettler::new(&database)),
            ))
    }

    /// Divides the stream into [`partitions`](Self::partitions), whatever it was before. All instances must have stopped, and everything must
    /// be handled. What was handled before stays, as far as there is a stream for it. Blocks as long as renaming its keys takes.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, somebody uses the stream, something waits in it, or the server can't be reached or refuses.
    pub fn repartition(&self) -> Result<(), OpenError> {
        self.check()?;
        let to = Arc::new(Database::new(self)?);
        let mut link = Link::new(&to);
        let known = self.known_partitions()?;
        let from = Database::new(&self.clone().partitions(known.unwrap_or(0)))?;
        repartition::divide(&mut link, &self.stream_name, &from, &to)
    }

    /// Into how many partitions the stream is divided, if that is written down.
    fn known_partitions(&self) -> Result<Option<u32>, OpenError> {
        let mut known = redis::cmd("GET");
        known.arg(repartition::key(&self.stream_name));
        let mut link = Link::new(&Arc::new(Database::new(self)?));
        link.call(|connection| known.query(connection)).map_err(OpenError::of)
    }

    /// Whether the stream is divided as the settings say; the first to open it writes that down.
    fn check_partitions(&self, link: &mut Link) -> Result<(), OpenError> {
        let mut note = redis::cmd("SET");
        note.arg(repartition::key(&self.stream_name)).arg(self.partitions).arg("NX").arg("GET");
        let known: Option<u32> = link.call(|connection| note.query(connection)).map_err(OpenError::of)?;
        match known.filter(|known| *known != self.partitions) {
            None => Ok(()),
            Some(known) => Err(OpenError::Setting(format!(
                "partitions: is {}, but the stream {:?} has {known}; `eventbroker admin repartition` divides it anew",
                self.partitions, self.stream_name
            ))),
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let least = [
            ("lease_time", self.lease_time, Duration::from_millis(100)),
            ("dedupe_window", self.dedupe_window, Duration::from_secs(1)),
            ("retention", self.retention, Duration::from_secs(1)),
            // Who serves a subscription says so each third of a lease.
            ("idle_expiry", self.idle_expiry, self.lease_time.max(Duration::from_secs(1))),
        ];
        for (name, is, least) in least {
            if is < least {
                return Err(OpenError::Setting(format!("{name}: is {is:?}, at least {least:?} is required")));
            }
        }
        if self.partitions > 64 {
            return Err(OpenError::Setting(format!("partitions: is {}, at most 64 is allowed", self.partitions)));
        }
        if self.min_replicas > 100 {
            return Err(OpenError::Setting(format!("min_replicas: is {}, at most 100 is allowed", self.min_replicas)));
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(5)).contains(&self.replica_timeout) {
            let time = self.replica_timeout;
            return Err(OpenError::Setting(format!("replica_timeout: is {time:?}, 1ms to 5s are allowed")));
        }
        for (name, text) in [("stream_name", &self.stream_name), ("consumer_group", &self.consumer_group)] {
            let length = text.len();
            if !(1..=255).contains(&length) {
                return Err(OpenError::Setting(format!("{name}: is {length} bytes long, 1 to 255 are allowed")));
            }
        }
        Ok(())
    }
}

impl OpenError {
    fn of(error: BackendError) -> Self {
        let (BackendError::Unavailable(reason) | BackendError::Refused(reason)) = error else {
            return Self::Server(error.to_string());
        };
        Self::Server(reason)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(problem) | Self::Server(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for OpenError {}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the address: a password may be in it.
        f.debug_struct("Redis")
            .field("stream_name", &self.stream_name)
            .field("consumer_group", &self.consumer_group)
            .finish_non_exhaustive()
    }
}
