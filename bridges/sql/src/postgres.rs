//! PostgreSQL, 13 or later: the settings, the tables, and what the parts of the provider share. Each part has a file: `mirror` (out),
//! `ingest` (in), `settler` (verdicts), `store` (looking up), `operator` (what operators ask for).
//!
//! The tables, if the events' table is called `events`: `events` has a row per event, with a `position` that says in which order they
//! were stored; `events_subscriptions` one per group and subscription name; `events_deliveries` one per event and subscription, made by
//! a trigger in the transaction that inserts the event; `events_instances` the names of instances; `events_meta` the version of the
//! schema. They are in the first schema of the role's `search_path`.
//!
//! A provider has up to five connections, each made and used on a thread of its own, so that it works inside an async program too, and
//! one more for each stream of all instances' events. Each statement may take 10 s, a lock 5 s; a server that does not answer is given
//! up after 15 s. Lost connections are made again, after 50 ms to 1 s. They use prepared statements and `LISTEN`, so a pooler in between
//! must pool sessions, not transactions.
//!
//! A publish is committed with `synchronous_commit = on` before it is accepted, or with more if the role asks for more. Claims and
//! verdicts are not synced: a crash of the server may undo them, and then they happen once more. Leases count by the server's clock.
//!
//! # Rights
//! Whoever makes the tables needs `CREATE` on the schema; where they are there, nobody needs it. A broker's role needs:
//! ```sql
//! GRANT SELECT, INSERT, UPDATE, DELETE ON events, events_subscriptions, events_deliveries, events_instances, events_meta TO broker;
//! GRANT USAGE ON SEQUENCE events_position_seq, events_subscriptions_id_seq, events_dead_letters TO broker;
//! ```
//! A role that only inserts events ([`publish_in`] or plain SQL) needs:
//! ```sql
//! GRANT INSERT ON events, events_deliveries TO publisher;
//! GRANT SELECT ON events, events_subscriptions, events_deliveries TO publisher;
//! GRANT UPDATE (status, completed_at) ON events TO publisher;
//! ```

mod consume;
mod publish;
mod query;
mod schema;
mod settle;
mod statements;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::{BackendError, Capabilities, Provider};

use crate::names::{InvalidName, TableName};
use crate::settings;
pub use publish::transaction::{Outbox, publish_in};
use transport::address::Address;
use transport::connection::Database;
use transport::link::{Link, Sync};

/// The channel of notifications, unless another one is chosen.
const CHANNEL: &str = "resolvespec_events";
const SHORTEST_POLL: Duration = Duration::from_millis(10);
/// How long opening may take: another instance may be making the tables.
const OPEN_LIMIT: Duration = Duration::from_secs(75);

/// The settings of a provider on a PostgreSQL database.
#[derive(Clone)]
#[must_use]
pub struct Postgres {
    url: String,
    table_name: String,
    consumer_group: String,
    lease_time: Duration,
    retention: Duration,
    idle_expiry: Duration,
    max_backlog: u64,
    channel: String,
    poll_interval: Duration,
}

/// Why a database could not be opened. Shows no password.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The name of the table is none.
    Name(InvalidName),
    /// A setting is out of its bounds: which, and which bounds.
    Setting(String),
    /// The database is there, and something else is in it.
    Schema(String),
    /// PostgreSQL could not be reached, or has refused: where it is, and its words.
    Server(String),
}

impl Postgres {
    /// The database at `url`, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with every default. A directory as the host, with each `/`
    /// as `%2F`, is that of a Unix socket.
    ///
    /// Another machine is spoken to over TLS (feature `tls`), whose certificate is checked, name included: with those of the system, or
    /// with those of the PEM file in the parameter `sslrootcert`. `sslmode=disable` sends everything in the clear, the password too if
    /// the server asks for that.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            table_name: TableName::default().as_str().to_owned(),
            consumer_group: settings::CONSUMER_GROUP.to_owned(),
            lease_time: settings::LEASE_TIME,
            retention: settings::RETENTION,
            idle_expiry: settings::IDLE_EXPIRY,
            max_backlog: settings::MAX_BACKLOG,
            channel: CHANNEL.to_owned(),
            poll_interval: Duration::from_secs(1),
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
    /// waits for it, logged and counted. All providers of a database should have the same. Default 7 days; at least 1 s and the lease time.
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

    /// The channel of the notifications by which instances tell each other that something was stored. Default `resolvespec_events`; 1 to
    /// 63 bytes.
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }

    /// How often the tables are looked at when no notification comes: so late are events at most that other programs insert by plain
    /// SQL, or whose notification was lost. Default 1 s; at least 10 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Connects, makes or migrates the tables, and returns a provider for one broker. Waits at most 75 s: for another instance that
    /// makes the tables, or for a server that does not answer.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, the server can't be reached or refuses, or the tables are not ours or of a later version.
    pub fn open(&self) -> Result<Provider, OpenError> {
        let table = TableName::parse(&self.table_name)?;
        settings::check(&self.consumer_group, self.lease_time, self.idle_expiry, self.max_backlog)
            .and_then(|()| settings::at_least("poll_interval", self.poll_interval, SHORTEST_POLL))
            .map_err(OpenError::Setting)?;
        if self.consumer_group.contains('\0') {
            return Err(OpenError::Setting("consumer_group: has a NUL, which PostgreSQL can't store".to_owned()));
        }
        if !(1..=63).contains(&self.channel.len()) || self.channel.contains('\0') {
            return Err(OpenError::Setting("channel: must have 1 to 63 bytes, and no NUL".to_owned()));
        }
        let address = Arc::new(Address::parse(&self.url)?);
        let thread = |error: std::io::Error| OpenError::Server(format!("a thread could not be started: {error}"));
        let lookups = Link::start("look", &address, Sync::Full).map_err(thread)?;
        let name = table.clone();
        let prepared = lookups.call_within(OPEN_LIMIT, move |session| schema::prepare(session, &name));
        prepared.map_err(|error| OpenError::at(&address, error))?.map_err(OpenError::Schema)?;
        let database = Arc::new(Database::new(self, &address, &table, lookups).map_err(thread)?);
        let capabilities =
            Capabilities::none().with_durability().with_instances().with_groups().with_broadcast().with_order_per_key();
        let capabilities = capabilities.with_order_per_subscription();
        let capabilities = capabilities.with_start_positions().with_durable_broadcast().with_replay().with_tail();
        Ok(Provider::new("postgres", capabilities)
            .with_store(Arc::new(query::store::PostgresStore::new(&database)))
            .with_operator(Arc::new(query::operator::PostgresOperator::new(&database)))
            .with_mirror(Box::new(publish::mirror::PostgresMirror::new(&database)))
            .with_ingest(
                Box::new(consume::PostgresIngest::new(&database)),
                Box::new(settle::PostgresSettler::new(&database)),
            ))
    }
}

/// The statements that make the tables, for whoever runs them by hand or wants to read them; [`Postgres::open`] runs them by itself. They
/// belong in one transaction.
///
/// # Errors
/// The name could not be a table's.
pub fn schema(table_name: &str) -> Result<String, InvalidName> {
    TableName::parse(table_name).map(|table| schema::text(&table))
}

impl OpenError {
    fn at(address: &Address, error: BackendError) -> Self {
        let (BackendError::Unavailable(reason) | BackendError::Refused(reason)) = error else {
            return Self::Server(error.to_string());
        };
        let place = address.to_string();
        if reason.starts_with(&place) {
            return Self::Server(reason);
        }
        Self::Server(format!("{place}: {}", reason.trim_start_matches("PostgreSQL: ")))
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
            Self::Setting(problem) | Self::Schema(problem) | Self::Server(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for OpenError {}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the address: a password may be in it.
        f.debug_struct("Postgres")
            .field("table_name", &self.table_name)
            .field("consumer_group", &self.consumer_group)
            .finish_non_exhaustive()
    }
}
