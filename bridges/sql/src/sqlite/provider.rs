//! Assembles a provider of its parts.

use std::sync::Arc;

use eventbroker::provider::Provider;

use crate::OpenError;
use crate::backlog::Backlog;
use crate::leases::Leases;
use crate::notify::Notify;
use crate::provider::capabilities;
use crate::sqlite::consume::Ingest;
use crate::sqlite::housekeeping::Housekeeping;
use crate::sqlite::membership::{Membership, new_member};
use crate::sqlite::publish::Mirror;
use crate::sqlite::query::{Operator, Store};
use crate::sqlite::schema::prepare;
use crate::sqlite::settings::Sqlite;
use crate::sqlite::settle::Settler;
use crate::sqlite::statements::{Statements, Tables};
use crate::sqlite::subscriptions::Subscriptions;
use crate::sqlite::transport::DatabaseFile;
use crate::subscriptions::LocalSubscriptions;

impl Sqlite {
    /// Opens the file, makes or migrates the tables, and returns a provider for one broker. Waits at most 5 s for another process
    /// that holds the file.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, the file can't be written, or its tables are not ours or of a later version.
    pub fn open(&self) -> Result<Provider, OpenError> {
        let table = self.shared.check()?;
        let file = DatabaseFile::open(&self.path, |connection| prepare(connection, &table, &self.path))?;
        let tables = &Tables { file: Arc::new(file), sql: Arc::new(Statements::new(&table)) };
        let (settings, member) = (&Arc::new(self.shared.clone()), &new_member());
        let (local, leases, notify) =
            (&Arc::<LocalSubscriptions>::default(), &Arc::<Leases>::default(), &Arc::<Notify>::default());
        let backlog = &Arc::new(Backlog::new(settings.max_backlog));
        let mirror = Mirror::new(tables, member, backlog, notify);
        let housekeeping = Housekeeping::new(tables, settings, backlog);
        let subscriptions = Subscriptions::new(tables, settings, member, local);
        let membership = Membership::new(tables, settings.lease_time, member);
        let ingest = Ingest::new(tables, settings, member, local, leases, notify, housekeeping)?;
        let settler = Settler::new(tables, settings, leases, notify, subscriptions, membership);
        Ok(Provider::new("sqlite", capabilities())
            .with_store(Arc::new(Store::new(tables, member, &mirror)?))
            .with_operator(Arc::new(Operator::new(tables, settings, local, notify)?))
            .with_mirror(Box::new(mirror))
            .with_ingest(Box::new(ingest), Box::new(settler)))
    }
}
