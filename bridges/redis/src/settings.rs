//! The settings of a provider, their bounds, and the errors of opening it.

use std::path::PathBuf;
use std::time::Duration;

use eventbroker::provider::BackendError;
pub use eventbroker_bridge_kit::settings::Status;
use eventbroker_bridge_kit::settings::{Settings, Url, at_least};

eventbroker_bridge_kit::settings! {
    /// The settings of a provider on a Redis server.
    pub struct Redis {
        /// The stream.
        ///
        /// The names of all other keys begin with it.
        stream_name(into): String = "resolvespec:events", 1 ..= 255 bytes;

        /// The prefix of the names of consumer groups.
        ///
        /// It is the group of this instance's subscriptions. Of the members of a group that have a subscription of the same name, one
        /// handles each event.
        consumer_group(into): String = "resolvespec-workers", 1 ..= 255 bytes;

        /// Entries that the stream holds; 0 is no limit.
        ///
        /// Entries that a subscription has not acknowledged stay, whatever their number.
        max_len: u64 = 10_000, 0 ..= 9_223_372_036_854_775_807;

        /// The address, redis://USER:PASSWORD@HOST:PORT/DB.
        url(no_setter): Url, secret;

        /// The PEM file with the certificates that a server at rediss:// is checked with, instead of those of the system.
        tls_ca_file(optional): PathBuf, 1 ..= 4_096 bytes;

        /// How many replicas must have an event before it counts as accepted.
        ///
        /// Such an event survives a failover to one of them. Until enough replicas have it, a publish waits, and its outcome is unknown
        /// at last.
        min_replicas: u32 = 0, 0 ..= 100;

        /// How long the replicas have to receive a batch.
        ///
        /// A batch that fewer than [`min_replicas`](Self::min_replicas) replicas have received by then is sent again.
        replica_timeout: Duration = 1 s, 1 ms ..= 5 s;

        /// How long the lease of a delivery lasts, unless its member extends it.
        ///
        /// A member extends its leases each third of this time. The deliveries of a member that died are handled by another one after
        /// this time. A retry whose delay is longer waits at the server, for any member, and comes up to a second late; not if its event
        /// has a key or its subscription is [ordered](eventbroker::SubscribeOptions::ordered).
        lease_time: Duration = 30 s, 100 ms ..= 7 days;

        /// How long an id is known after its publish.
        ///
        /// Within this time at least, and at most twice as long, the same event is recognized as a duplicate.
        dedupe_window: Duration = 60 s, 1 s ..= 7 days;

        /// How long handled entries are kept.
        ///
        /// The stored statuses are kept as long. An entry that a subscription has not acknowledged stays, whatever its age.
        retention: Duration = 7 days, 1 s ..= 3_650 days;

        /// How long a subscription is kept that no instance serves.
        ///
        /// Then it is removed with its backlog, logged and counted. The time is at least the lease time.
        idle_expiry: Duration = 7 days, 1 s ..= 3_650 days;

        /// How many entries may wait for one subscription until publishes are refused; 0 is no limit.
        ///
        /// The backlog has the unread and the pending entries, the redeliveries and the deferred retries. It is measured once a second.
        /// Entries that the pattern does not match count until a member has read them.
        max_backlog: u64 = 1_000_000, 0 ..= 9_223_372_036_854_775_807;

        /// The number of streams that the events are divided into, each with one owner; 0 is one stream for all.
        ///
        /// The [key](eventbroker::Event::key) of an event, or its id without a key, gives its partition. Each partition has one owner per
        /// subscription, so the events of a key are in order across instances. Members that come and go rebalance the partitions. 0 is
        /// the one stream of ResolveSpec, for which members compete. The number is stored with the stream: another number is an error
        /// until the stream is repartitioned.
        partitions: u32 = 0, 0 ..= 64;

        /// Whether the provider adopts the number that is recorded with the stream, whatever partitions says.
        ///
        /// For tools.
        adopt_partitions: bool = false;

        /// Which statuses are recorded: full or failures.
        status(word): Status = "failures";
    }
}

/// The reason why a provider could not be opened. Shows no password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is invalid. The text names the setting and its bounds.
    #[error("{0}")]
    Setting(String),
    /// The server could not be reached, or has refused. The text is the server's.
    #[error("{0}")]
    Server(String),
}

impl Redis {
    /// The server at `url`, with every default.
    ///
    /// The form is `redis://USER:PASSWORD@HOST:PORT/DATABASE` or `redis+unix:///PATH?db=0`. `rediss://` is TLS (feature `tls`); the
    /// server's certificate is checked, name included.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: Url::new(url), ..Self::default() }
    }

    /// Checks the bounds of every setting.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        self.check_bounds().map_err(OpenError::Setting)?;
        // A member shows once per third of a lease that it uses its subscriptions.
        at_least("idle_expiry", self.idle_expiry, self.lease_time).map_err(OpenError::Setting)
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
