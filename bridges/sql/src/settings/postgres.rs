//! The settings of a provider on a PostgreSQL database.

use eventbroker_bridge_kit::settings::{Settings as _, Url};

use crate::names::TableName;
use crate::settings::{Connections, Notifications, OpenError, Settings};

/// The settings of a provider on a PostgreSQL database.
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct Postgres {
    pub(crate) url: Url,
    /// The settings that SQLite has too.
    pub shared: Settings,
    /// The notifications of stored events.
    pub notifications: Notifications,
    /// The connections.
    pub connections: Connections,
}

impl Postgres {
    /// The database at `url`, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with every default. The host of a Unix socket is its
    /// directory, with each `/` as `%2F`. Several servers, `HOST:PORT,HOST:PORT`, are tried in their order, and only one that can be
    /// written to will do (see the [module](crate::postgres)).
    ///
    /// Connections to another machine use TLS (feature `tls`). The server's certificate is checked, name included, with the certificates
    /// of the system or of the PEM file in the parameter `sslrootcert`. `sslmode=disable` sends everything in the clear, also the
    /// password if the server asks for it in the clear.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: Url::new(url),
            shared: Settings::default(),
            notifications: Notifications::default(),
            connections: Connections::default(),
        }
    }

    /// Checks all settings but the address. Returns the name of the table.
    pub(crate) fn check(&self) -> Result<TableName, OpenError> {
        let table = self.shared.check()?;
        self.notifications.check_bounds().map_err(OpenError::Setting)?;
        self.connections.check_bounds().map_err(OpenError::Setting)?;
        if !self.notifications.listen_url.is_empty() && self.connections.max_connections < 2 {
            let problem = "max_connections: is 1, at least 2 is required with listen_url";
            return Err(OpenError::Setting(problem.to_owned()));
        }
        for (name, text) in [("consumer_group", &self.shared.consumer_group), ("channel", &self.notifications.channel)]
        {
            if text.contains('\0') {
                return Err(OpenError::Setting(format!("{name}: has a NUL, which PostgreSQL can't store")));
            }
        }
        Ok(table)
    }
}
