//! SQLite: the settings, the tables, and what the parts of the provider share. Each part has a file: `mirror` (out), `ingest`
//! (in), `settler` (verdicts), `store` (looking up), `operator` (what operators ask for).
//!
//! The tables, if the events' table is called `events`: `events` has a row per event, with a `position` that says in which order
//! they were stored; `events_subscriptions` one per group and subscription name, and instance if it is a broadcast;
//! `events_deliveries` one per event and subscription, made by a trigger in the transaction that inserts the event; `events_instances`
//! one per name of an instance that is taken; `events_meta` the version of the schema and some counters. Times are RFC 3339 in UTC,
//! to the nanosecond.
//!
//! All that a provider writes goes through one connection, one transaction at a time, because SQLite has one writer anyway: what
//! waits for a lock inside the process waits in turn, not in SQLite's busy loop. A publish is synced to the disk before it is
//! accepted. Claims and verdicts are not synced, because a power loss may undo them: then they happen once more.

mod consume;
mod membership;
mod publish;
mod query;
mod schema;
mod settle;
mod statements;
mod transport;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::{Capabilities, Provider};

use crate::names::{InvalidName, TableName};
use crate::settings;
pub use publish::transaction::{Outbox, publish_in};
use transport::connection::Database;

/// The settings of a provider on an SQLite file.
///
/// The file must be on a local disk: network file systems break SQLite's locks. A process that is stopped (not ended) in the middle of
/// a write holds SQLite's lock until it goes on or ends; so long nobody else can write, and publishes wait.
#[derive(Debug, Clone)]
#[must_use]
pub struct Sqlite {
    path: PathBuf,
    table_name: String,
    consumer_group: String,
    lease_time: Duration,
    retention: Duration,
    idle_expiry: Duration,
    max_backlog: u64,
}

/// Why a database could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The name of the table is none.
    Name(InvalidName),
    /// A setting is out of its bounds: which, and which bounds.
    Setting(String),
    /// The file is there, and something else is in it.
    Schema(String),
    /// SQLite could not open, read or write the file.
    File {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
}

impl Sqlite {
    /// The file at `path`, which is made if it is not there, with every default.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            table_name: TableName::default().as_str().to_owned(),
            consumer_group: settings::CONSUMER_GROUP.to_owned(),
            lease_time: settings::LEASE_TIME,
            retention: settings::RETENTION,
            idle_expiry: settings::IDLE_EXPIRY,
            max_backlog: settings::MAX_BACKLOG,
        }
    }

    /// The name of the events' table, of which those of the others are made. Default `events`; see [`TableName`].
    pub fn table_name(mut self, name: impl Into<String>) -> Self {
        self.table_name = name.into();
        self
    }

    /// The group that this instance's subscriptions belong to: of the members of a group that have a subscription of the same
    /// name, one handles each event. Default `resolvespec-workers`; 1 to 255 bytes.
    pub fn consumer_group(mut self, group: impl Into<String>) -> Self {
        self.consumer_group = group.into();
        self
    }

    /// How long an event belongs to the member that took it, unless that shows that it is alive, which it does each third of
    /// this. So long it takes until the events of a member that died are handled by another one. Default 30 s; at least 100 ms.
    pub fn lease_time(mut self, time: Duration) -> Self {
        self.lease_time = time;
        self
    }

    /// How long completed and failed events are kept, counted from their end; their dead letters go with them, and are counted. What
    /// waits for a subscription or is being handled stays, however old it is. Default 7 days.
    pub fn retention(mut self, time: Duration) -> Self {
        self.retention = time;
        self
    }

    /// How long a subscription is kept that no instance serves, of a group or a durable broadcast: then it is removed with what
    /// waits for it, logged and counted. All providers of a file should have the same. Default 7 days; at least 1 s and the lease time.
    pub fn idle_expiry(mut self, time: Duration) -> Self {
        self.idle_expiry = time;
        self
    }

    /// How many deliveries may wait for one subscription until somebody takes them: then a publish is refused as full, whichever type
    /// it has. It is looked at once a second, and less often if that takes long, so somewhat more are stored; what other programs
    /// insert, or a transaction of yours, is not refused. Default 1,000,000; at least 1.
    pub fn max_backlog(mut self, deliveries: u64) -> Self {
        self.max_backlog = deliveries;
        self
    }

    /// Opens the file, makes or migrates the tables, and returns a provider for one broker. Waits at most 5 s for another process
    /// that holds the file.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, the file can't be written, or its tables are not ours or of a later version.
    pub fn open(&self) -> Result<Provider, OpenError> {
        let table = TableName::parse(&self.table_name)?;
        settings::check(&self.consumer_group, self.lease_time, self.idle_expiry, self.max_backlog)
            .map_err(OpenError::Setting)?;
        let database = Arc::new(Database::open(self, &table)?);
        let ingest = consume::SqliteIngest::new(&database)?;
        let capabilities =
            Capabilities::none().with_durability().with_instances().with_groups().with_broadcast().with_order_per_key();
        let capabilities = capabilities.with_order_per_subscription();
        let capabilities = capabilities.with_start_positions().with_durable_broadcast().with_replay().with_tail();
        Ok(Provider::new("sqlite", capabilities)
            .with_store(Arc::new(query::store::SqliteStore::new(&database)?))
            .with_operator(Arc::new(query::operator::SqliteOperator::new(&database)?))
            .with_mirror(Box::new(publish::mirror::SqliteMirror::new(&database)))
            .with_ingest(Box::new(ingest), Box::new(settle::SqliteSettler::new(&database))))
    }
}

/// The statements that make the tables, for whoever runs them by hand or wants to read them; `open` runs them by itself.
///
/// # Errors
/// The name could not be a table's.
pub fn schema(table_name: &str) -> Result<String, InvalidName> {
    TableName::parse(table_name).map(|table| schema::text(&table))
}

impl OpenError {
    fn file(path: &Path, error: &rusqlite::Error) -> Self {
        Self::File { path: path.to_owned(), reason: error.to_string() }
    }
}

impl From<InvalidName> for OpenError {
    fn from(error: InvalidName) -> Self {
        Self::Name(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Setting(problem) | Self::Schema(problem) => f.write_str(problem),
            Self::File { path, reason } => write!(f, "SQLite file {}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}
