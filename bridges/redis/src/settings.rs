//! The settings of a provider, their bounds, and the errors of opening it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use eventbroker::provider::BackendError;

/// The settings of a provider on a Redis server.
#[derive(Clone)]
#[must_use]
pub struct Redis {
    pub(crate) url: String,
    pub(crate) tls_ca_file: Option<PathBuf>,
    pub(crate) stream_name: String,
    pub(crate) consumer_group: String,
    pub(crate) lease_time: Duration,
    pub(crate) dedupe_window: Duration,
    pub(crate) retention: Duration,
    pub(crate) max_len: u64,
    pub(crate) idle_expiry: Duration,
    pub(crate) min_replicas: u32,
    pub(crate) replica_timeout: Duration,
    pub(crate) partitions: u32,
    pub(crate) adopt_partitions: bool,
    pub(crate) max_backlog: u64,
    pub(crate) status: Status,
}

/// The statuses that the server stores of events, beside what the consumer groups show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Failures, retries, and the time at which each subscription handled an event: a key per event.
    Full,
    /// Failures, and the number of retries.
    #[default]
    Failures,
}

/// The reason why a provider could not be opened. Shows no password.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is invalid. The text names the setting and its bounds.
    Setting(String),
    /// The server could not be reached, or has refused. The text is the server's.
    Server(String),
}

impl Redis {
    /// The server at `url`, with every default.
    ///
    /// The form is `redis://USER:PASSWORD@HOST:PORT/DATABASE` or `redis+unix:///PATH?db=0`. `rediss://` is TLS (feature `tls`); the
    /// server's certificate is checked, name included.
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
        }
    }

    /// A PEM file with the certificates that verify a `rediss://` server. Default: the system's certificates.
    pub fn tls_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls_ca_file = Some(path.into());
        self
    }

    /// The name of the stream, and the prefix of every other key. Default `resolvespec:events`; 1 to 255 bytes.
    pub fn stream_name(mut self, name: impl Into<String>) -> Self {
        self.stream_name = name.into();
        self
    }

    /// The group of this instance's subscriptions. Default `resolvespec-workers`; 1 to 255 bytes.
    ///
    /// Of the members of a group that have a subscription of the same name, one handles each event.
    pub fn consumer_group(mut self, group: impl Into<String>) -> Self {
        self.consumer_group = group.into();
        self
    }

    /// Checks the bounds of every setting.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let least = [
            ("lease_time", self.lease_time, Duration::from_millis(100)),
            ("dedupe_window", self.dedupe_window, Duration::from_secs(1)),
            ("retention", self.retention, Duration::from_secs(1)),
            // A member shows once per third of a lease that it uses its subscriptions.
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

/// Defines setters.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        impl Redis {
            $($(#[$doc])* pub fn $name(mut self, value: $type) -> Self {
                self.$name = value;
                self
            })*
        }
    };
}

setters! {
    /// The lease of a delivery. Default 30 s; at least 100 ms.
    ///
    /// A member extends its leases each third of this time. The deliveries of a member that died are handled by another one after this
    /// time. A retry whose delay is longer waits at the server, for any member, and comes up to a second late; not if its event has a
    /// key or its subscription is [ordered](eventbroker::SubscribeOptions::ordered).
    lease_time: Duration;
    /// The time in which the same event is recognized as a duplicate, at least; at most twice as long. Default 60 s; at least 1 s.
    dedupe_window: Duration;
    /// The time for which handled entries and stored statuses are kept. Default 7 days; at least 1 s.
    ///
    /// An entry that a subscription has not acknowledged stays, whatever its age.
    retention: Duration;
    /// The number of handled entries that are kept; 0 is no limit. Default 10,000.
    ///
    /// Entries that a subscription has not acknowledged stay, whatever their number.
    max_len: u64;
    /// The time after which a subscription that no instance serves is removed. Default 7 days; at least 1 s and the lease time.
    ///
    /// Its backlog is removed with it. The removal is logged and counted.
    idle_expiry: Duration;
    /// The number of replicas that must have an event before it counts as accepted. Default 0; at most 100.
    ///
    /// Such an event survives a failover to one of them. Until enough replicas have it, a publish waits, and its outcome is unknown at
    /// last.
    min_replicas: u32;
    /// The time that [`min_replicas`](Self::min_replicas) have to receive a batch before it is sent again. Default 1 s; 1 ms to 5 s.
    replica_timeout: Duration;
    /// The number of streams that share the events, by [key](eventbroker::Event::key) or, without a key, by id. Default 0; at most 64.
    ///
    /// Each partition has one owner per subscription, so the events of a key are in order across instances. Members that come and go
    /// rebalance the partitions. 0 is the one stream of ResolveSpec, for which members compete. The number is stored with the stream:
    /// another number is an error until the stream is [repartitioned](Self::repartition).
    partitions: u32;
    /// Whether the number of partitions that is stored with the stream overrides the setting: for tools. Default false.
    adopt_partitions: bool;
    /// The backlog of a subscription at which publishes are refused as full; 0 is no limit. Default 1,000,000.
    ///
    /// The backlog has the unread and the pending entries, the redeliveries and the deferred retries. It is measured once a second.
    /// Entries that the pattern does not match count until a member has read them.
    max_backlog: u64;
    /// The statuses that the server stores. Default [`Failures`](Status::Failures).
    status: Status;
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the address: it may hold a password.
        f.debug_struct("Redis")
            .field("stream_name", &self.stream_name)
            .field("consumer_group", &self.consumer_group)
            .finish_non_exhaustive()
    }
}

impl From<BackendError> for OpenError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Unavailable(reason) | BackendError::Refused(reason) => Self::Server(reason),
            other => Self::Server(other.to_string()),
        }
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
