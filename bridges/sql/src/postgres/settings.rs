//! The settings of a provider on a PostgreSQL database.

use std::fmt;
use std::time::Duration;

use crate::names::TableName;
use crate::settings::{OpenError, Settings, at_least, shared_setters};

/// The default channel of notifications.
pub(crate) const CHANNEL: &str = "resolvespec_events";
const SHORTEST_POLL: Duration = Duration::from_millis(10);

/// The settings of a provider on a PostgreSQL database.
#[derive(Clone)]
#[must_use]
pub struct Postgres {
    pub(crate) url: String,
    pub(crate) shared: Settings,
    pub(crate) channel: String,
    pub(crate) poll_interval: Duration,
}

impl Postgres {
    /// The database at `url`, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with every default. The host of a Unix socket is its
    /// directory, with each `/` as `%2F`.
    ///
    /// Connections to another machine use TLS (feature `tls`). The server's certificate is checked, name included, with the certificates
    /// of the system or of the PEM file in the parameter `sslrootcert`. `sslmode=disable` sends everything in the clear, also the
    /// password if the server asks for it in the clear.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            shared: Settings::default(),
            channel: CHANNEL.to_owned(),
            poll_interval: Duration::from_secs(1),
        }
    }

    shared_setters!();

    /// The channel of the notifications by which instances report that an event was stored. Default `resolvespec_events`; 1 to 63
    /// bytes.
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }

    /// How often the tables are polled without a notification. Events that other programs insert by plain SQL, or whose notification
    /// was lost, are late by at most this time. Default 1 s; at least 10 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Checks all settings but the address. Returns the name of the table.
    pub(crate) fn check(&self) -> Result<TableName, OpenError> {
        let table = self.shared.check()?;
        at_least("poll_interval", self.poll_interval, SHORTEST_POLL)?;
        let setting = |problem: &str| Err(OpenError::Setting(problem.to_owned()));
        if self.shared.consumer_group.contains('\0') {
            return setting("consumer_group: has a NUL, which PostgreSQL can't store");
        }
        if !(1..=63).contains(&self.channel.len()) || self.channel.contains('\0') {
            return setting("channel: must have 1 to 63 bytes, and no NUL");
        }
        Ok(table)
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address is left out, because it may contain a password.
        f.debug_struct("Postgres")
            .field("table_name", &self.shared.table_name)
            .field("consumer_group", &self.shared.consumer_group)
            .finish_non_exhaustive()
    }
}
