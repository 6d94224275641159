//! The settings that both databases have, with their defaults and bounds.

use std::fmt;
use std::time::Duration;

use crate::names::{InvalidName, TableName};

const SHORTEST_LEASE: Duration = Duration::from_millis(100);
const SHORTEST_IDLE_EXPIRY: Duration = Duration::from_secs(1);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// The settings that both databases have; their setters have the documentation.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) table_name: String,
    pub(crate) consumer_group: String,
    pub(crate) lease_time: Duration,
    pub(crate) retention: Duration,
    pub(crate) idle_expiry: Duration,
    pub(crate) max_backlog: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            table_name: TableName::default().as_str().to_owned(),
            consumer_group: "resolvespec-workers".to_owned(),
            lease_time: Duration::from_secs(30),
            retention: WEEK,
            idle_expiry: WEEK,
            max_backlog: 1_000_000,
        }
    }
}

impl Settings {
    /// Checks all settings. Returns the name of the table.
    pub(crate) fn check(&self) -> Result<TableName, OpenError> {
        let table = TableName::parse(&self.table_name)?;
        if self.max_backlog == 0 {
            return Err(OpenError::Setting("max_backlog: is 0, at least 1 is required".to_owned()));
        }
        at_least("lease_time", self.lease_time, SHORTEST_LEASE)?;
        // A provider sends its heartbeat each third of a lease.
        at_least("idle_expiry", self.idle_expiry, self.lease_time.max(SHORTEST_IDLE_EXPIRY))?;
        let length = self.consumer_group.len();
        if !(1..=255).contains(&length) {
            return Err(OpenError::Setting(format!("consumer_group: is {length} bytes long, 1 to 255 are allowed")));
        }
        Ok(table)
    }
}

pub(crate) fn at_least(name: &str, is: Duration, least: Duration) -> Result<(), OpenError> {
    if is >= least {
        return Ok(());
    }
    Err(OpenError::Setting(format!("{name}: is {is:?}, at least {least:?} is required")))
}

/// The setters of [`Settings`], for a builder with a field `shared`.
macro_rules! shared_setters {
    () => {
        /// The name of the events' table, from which the names of the other tables follow. Default `events`; see
        /// [`TableName`](crate::TableName).
        pub fn table_name(mut self, name: impl Into<String>) -> Self {
            self.shared.table_name = name.into();
            self
        }

        /// The group that this instance's subscriptions belong to. Of the members of a group that have a subscription of the same
        /// name, one handles each event. Default `resolvespec-workers`; 1 to 255 bytes.
        pub fn consumer_group(mut self, group: impl Into<String>) -> Self {
            self.shared.consumer_group = group.into();
            self
        }

        /// How long an event belongs to the member that has claimed it. A member extends its leases each third of this time, so another
        /// member takes over the events of a dead one after at most this time. Default 30 s; at least 100 ms.
        pub fn lease_time(mut self, time: std::time::Duration) -> Self {
            self.shared.lease_time = time;
            self
        }

        /// How long completed and failed events are kept after their end. Their dead letters are removed with them, and counted.
        /// Events with a delivery that waits or runs stay, however old they are. Default 7 days.
        pub fn retention(mut self, time: std::time::Duration) -> Self {
            self.shared.retention = time;
            self
        }

        /// How long a subscription is kept that no instance serves. Then it is removed with the deliveries that wait for it, logged and
        /// counted. This holds for subscriptions of a group and for durable broadcasts. All providers of one database should have the
        /// same. Default 7 days; at least 1 s and the lease time.
        pub fn idle_expiry(mut self, time: std::time::Duration) -> Self {
            self.shared.idle_expiry = time;
            self
        }

        /// How many deliveries may wait for one subscription before publishes are refused as full, whatever their type. The deliveries are
        /// counted once a second, and less often if counting is slow, so somewhat more are stored. Events that other programs insert, or
        /// your own transaction, are not refused. Default 1,000,000; at least 1.
        pub fn max_backlog(mut self, deliveries: u64) -> Self {
            self.shared.max_backlog = deliveries;
            self
        }
    };
}
pub(crate) use shared_setters;

/// Why a database could not be opened. Shows no password.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The name is not allowed for a table.
    Name(InvalidName),
    /// A setting is out of its bounds: which setting, and which bounds.
    Setting(String),
    /// The database has other tables, or tables of a later version.
    Schema(String),
    /// The file could not be opened, read or written, or the server could not be reached or has refused: the place, and the reason.
    Unavailable(String),
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
            Self::Setting(problem) | Self::Schema(problem) | Self::Unavailable(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for OpenError {}
