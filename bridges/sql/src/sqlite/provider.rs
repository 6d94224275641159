//! Assembles a provider of its parts.

use std::sync::Arc;

use eventbroker::provider::Provider;

use crate::backlog::Backlog;
use crate::member::Member;
use crate::notify::Notify;
use crate::provider::capabilities;
use crate::settings::OpenError;
use crate::settings::Sqlite;
use crate::sqlite::consume::Ingest;
use crate::sqlite::housekeeping::Housekeeping;
use crate::sqlite::publish::Mirror;
use crate::sqlite::query::{Operator, Store};
use crate::sqlite::schema::prepare;
use crate::sqlite::settle::Settler;
use crate::sqlite::statements::{Statements, Tables};
use crate::sqlite::transport::DatabaseFile;

impl Sqlite {
    /// Opens the file, makes or migrates the tables, and returns a provider for one broker. Waits at most 5 s for another process
    /// that holds the file.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, the file can't be written, or its tables are not ours or of a later version.
    pub fn open(&self) -> Result<Provider, OpenError> {
        let table = self.shared.check()?;
        let file = DatabaseFile::open(&self.path, |connection| prepare(connection, &table, &self.path))?;
        let tables = Arc::new(Tables { file, sql: Statements::new(&table) });
        let member = Arc::new(Member::new(&self.shared));
        let (backlog, notify) = (Arc::new(Backlog::new(self.shared.max_backlog)), Arc::<Notify>::default());
        let housekeeping = Housekeeping::new(tables.clone(), member.clone(), backlog.clone());
        let mirror = Mirror { tables: tables.clone(), member: member.clone(), backlog, notify: notify.clone() };
        let ingest = Ingest::new(tables.clone(), member.clone(), notify.clone(), housekeeping)?;
        let settler = Settler::new(tables.clone(), member.clone(), notify.clone());
        Ok(Provider::new("sqlite", capabilities())
            .with_store(Arc::new(Store::new(tables.clone(), member.clone(), mirror.clone())?))
            .with_operator(Arc::new(Operator::new(tables, member, notify)?))
            .with_mirror(Box::new(mirror))
            .with_ingest(Box::new(ingest), Box::new(settler)))
    }
}
