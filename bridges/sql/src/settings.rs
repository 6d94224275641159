//! The settings of the providers, with their defaults and bounds.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

use eventbroker_bridge_kit::settings::{Settings as _, Url, at_least};

use crate::names::{InvalidName, TableName};

#[cfg(feature = "postgres")]
pub use postgres::Postgres;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;

eventbroker_bridge_kit::settings! {
    /// The settings that both databases have.
    pub struct Settings {
        /// The table.
        ///
        /// The names of the other tables begin with this one; see [`TableName`].
        table_name(into): String = "events", 1 ..= 48 bytes;

        /// The prefix of the names of groups.
        ///
        /// It is the group that this instance's subscriptions belong to. Of the members of a group that have a subscription of the same
        /// name, one handles each event.
        consumer_group(into): String = "resolvespec-workers", 1 ..= 255 bytes;

        /// How long the lease of a delivery lasts, unless its member extends it.
        ///
        /// A member extends its leases each third of this time, so another member takes over the events of a dead one after at most this
        /// time.
        lease_time: Duration = 30 s, 100 ms ..= 7 days;

        /// How long completed and failed events are kept.
        ///
        /// The time begins with their end. Their dead letters are removed with them, and counted. Events with a delivery that waits or
        /// runs stay, however old they are.
        retention: Duration = 7 days, 0 s ..= 3_650 days;

        /// How long a subscription is kept that no instance serves.
        ///
        /// Then it is removed with the deliveries that wait for it, logged and counted. This holds for subscriptions of a group and for
        /// durable broadcasts. All providers of one database should have the same. The time is at least the lease time.
        idle_expiry: Duration = 7 days, 1 s ..= 3_650 days;

        /// How many deliveries may wait for one subscription until publishes are refused.
        ///
        /// The type of a delivery does not matter. The deliveries are counted once a second, and less often if counting is slow, so
        /// somewhat more are stored. Events that other programs insert, or your own transaction, are not refused.
        max_backlog: u64 = 1_000_000, 1 ..= 9_223_372_036_854_775_807;
    }
    #[cfg(feature = "sqlite")]
    setters on Sqlite => shared;
    #[cfg(feature = "postgres")]
    setters on Postgres => shared;
}

eventbroker_bridge_kit::settings! {
    /// The settings that PostgreSQL has besides.
    pub struct Notifications {
        /// The channel of notifications.
        ///
        /// Instances report on it that an event was stored.
        channel(into): String = "resolvespec_events", 1 ..= 63 bytes;

        /// How often a member polls the table when no notification comes.
        ///
        /// Events that other programs insert by plain SQL, or whose notification was lost, are late by at most this time.
        poll_interval: Duration = 1 s, 10 ms ..= 7 days;

        /// The address to listen for notifications at, without a pooler; nothing: the database's own.
        ///
        /// Behind a pooler that shares sessions no notification comes through. Without this address, events of other instances are late
        /// by at most the poll interval there.
        listen_url(into): Url, secret;
    }
    #[cfg(feature = "postgres")]
    setters on Postgres => notifications;
}

eventbroker_bridge_kit::settings! {
    /// The connections to a PostgreSQL server.
    pub struct Connections {
        /// Whether a pooler shares the server's sessions between clients: auto, true or false.
        ///
        /// See [`Pooler`].
        pooler(word): Pooler = "auto";

        /// How many connections an instance has at most.
        ///
        /// One of them listens for notifications, if there are two or more. The others are shared by publishes, claims, verdicts and
        /// the questions of operators; more than four of these are of no use. Opening uses two for a moment. While a
        /// silent connection is replaced, there is one more.
        max_connections: u32 = 3, 1 ..= 5;
    }
    #[cfg(feature = "postgres")]
    setters on Postgres => connections;
}

/// Whether a pooler in front of PostgreSQL gives a session to another client after each transaction, as PgBouncer does with
/// `pool_mode = transaction`. A pooler that pools sessions is like none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooler {
    /// Opening finds out, by two connections in turns. A pooler whose sessions other clients use meanwhile may stay unseen.
    #[default]
    Auto,
    /// Nothing rests on a session: each statement runs in a transaction with its settings, and none is prepared under a name.
    True,
    /// There is none. Opening fails if it finds one.
    False,
}

eventbroker_bridge_kit::words!(Pooler: "auto" = Self::Auto, "true" = Self::True, "false" = Self::False);

impl Settings {
    /// Checks all settings. Returns the name of the table.
    pub(crate) fn check(&self) -> Result<TableName, OpenError> {
        let table = TableName::parse(&self.table_name)?;
        self.check_bounds().map_err(OpenError::Setting)?;
        // A provider sends its heartbeat each third of a lease.
        at_least("idle_expiry", self.idle_expiry, self.lease_time).map_err(OpenError::Setting)?;
        Ok(table)
    }
}

/// Why a database could not be opened. Shows no password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name is not allowed for a table.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A setting is out of its bounds: which setting, and which bounds.
    #[error("{0}")]
    Setting(String),
    /// The database has other tables, or tables of a later version.
    #[error("{0}")]
    Schema(String),
    /// The file could not be opened, read or written, or the server could not be reached or has refused: the place, and the reason.
    #[error("{0}")]
    Unavailable(String),
}
