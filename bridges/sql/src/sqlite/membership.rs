//! This provider as a member of its group: the name of its instance.

mod process;

use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::BackendError;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::member::Member;
use crate::sqlite::statements::{Tables, execute};
use crate::sqlite::transport::{Sync, deadline, now_millis};

/// The name of this instance.
pub(crate) struct Membership {
    tables: Arc<Tables>,
    lease_time: Duration,
    /// The id of this provider, with its process, by which others see whether it lives.
    holder: String,
    /// Empty until this instance has joined.
    pub(crate) instance: String,
}

impl Membership {
    pub(crate) fn new(tables: Arc<Tables>, member: &Member) -> Self {
        let holder = format!("{} {}", process::current(), member.id);
        Self { tables, lease_time: member.settings.lease_time, holder, instance: String::new() }
    }

    /// Claims the name for this instance. False if another instance has it.
    pub(crate) fn join(&mut self, name: &str) -> Result<bool, BackendError> {
        let sql = &self.tables.sql;
        let joined = self.tables.file.write(Sync::Later, |transaction| {
            let holder = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
            let held = transaction.prepare_cached(&sql.instance)?.query_row([name], holder).optional()?;
            let is_taken = held.is_some_and(|(holder, until)| {
                holder != self.holder && process::is_alive(&holder).unwrap_or_else(|| until > now_millis())
            });
            if !is_taken {
                execute(transaction, &sql.claim_instance, params![name, self.holder, deadline(self.lease_time)])?;
            }
            Ok(!is_taken)
        })?;
        if joined {
            self.instance = name.to_owned();
        }
        Ok(joined)
    }

    /// Keeps the name for another lease time.
    pub(crate) fn heartbeat(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let values = params![self.holder, deadline(self.lease_time)];
        execute(transaction, &self.tables.sql.extend_instance, values).map(drop)
    }

    /// Gives the name back.
    pub(crate) fn leave(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        execute(transaction, &self.tables.sql.release_instance, [&self.holder]).map(drop)
    }
}
