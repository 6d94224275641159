//! Gives back the deliveries of dead members, and removes expired subscriptions and events.

use std::sync::Arc;
use std::time::SystemTime;

use eventbroker::provider::BackendError;
use rusqlite::{Connection, params};

use crate::backlog::Backlog;
use crate::columns::{id, time_text};
use crate::housekeeping::{CLEAN_UP_BATCH, Schedule};
use crate::member::Member;
use crate::sqlite::statements::{Tables, execute};
use crate::sqlite::transport::{Sync, backend_error, now_millis};

/// The housekeeping of one provider; the ingest runs it.
pub(crate) struct Housekeeping {
    tables: Arc<Tables>,
    member: Arc<Member>,
    backlog: Arc<Backlog>,
    pub(crate) schedule: Schedule,
}

impl Housekeeping {
    pub(crate) fn new(tables: Arc<Tables>, member: Arc<Member>, backlog: Arc<Backlog>) -> Self {
        let schedule = Schedule::new(&member.settings);
        Self { tables, member, backlog, schedule }
    }

    /// Expires leases, and cleans up if it is time for that too.
    pub(crate) fn run(&mut self, reader: &Connection) -> Result<(), BackendError> {
        self.expire_leases(reader)?;
        if self.schedule.is_clean_up_due() {
            self.remove_unused_subscriptions(reader)?;
            let has_more = self.remove_expired_events(reader)?;
            self.schedule.cleaned_up(has_more);
        }
        Ok(())
    }

    /// Measures the backlog if it is time.
    pub(crate) fn check_backlog(&self, reader: &Connection) -> Result<(), BackendError> {
        self.backlog.check(|max| {
            let is_full = reader.prepare_cached(&self.tables.sql.is_full);
            is_full.and_then(|mut it| it.query_row([max], |row| row.get(0))).map_err(|error| backend_error(&error))
        })
    }

    /// Makes deliveries ready whose leases have expired, and removes broadcast subscriptions whose providers send no heartbeat.
    fn expire_leases(&self, reader: &Connection) -> Result<(), BackendError> {
        let (file, sql, now) = (&self.tables.file, &self.tables.sql, now_millis());
        file.write(Sync::Later, |transaction| execute(transaction, &sql.expire_leases, [now]))?;
        let mut expired = reader.prepare_cached(&sql.expired_broadcasts).map_err(|error| backend_error(&error))?;
        if !expired.exists([now]).map_err(|error| backend_error(&error))? {
            return Ok(());
        }
        file.write(Sync::Later, |transaction| {
            let mut expired = transaction.prepare_cached(&sql.expired_broadcasts)?;
            let ids = expired.query_map([now], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
            ids.into_iter().try_for_each(|id| self.tables.forget(transaction, id))
        })
    }

    fn remove_unused_subscriptions(&self, reader: &Connection) -> Result<(), BackendError> {
        let (idle_expiry, sql) = (self.member.settings.idle_expiry, &self.tables.sql);
        let Some(since) = SystemTime::now().checked_sub(idle_expiry) else { return Ok(()) };
        let since = time_text(since);
        let unused = reader.prepare_cached(&sql.unused_subscriptions).and_then(|mut unused| unused.exists([&since]));
        if !unused.map_err(|error| backend_error(&error))? {
            return Ok(());
        }
        self.tables.file.write(Sync::Later, |transaction| {
            let mut unused = transaction.prepare_cached(&sql.unused_subscriptions)?;
            let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let unused: Vec<(i64, String, String)> = unused.query_map([&since], columns)?.collect::<Result<_, _>>()?;
            for (id, group, name) in &unused {
                tracing::warn!(group, name, ?idle_expiry, "no instance has served a subscription: it is removed");
                self.tables.forget(transaction, *id)?;
            }
            self.tables.add_to_counter(transaction, "subscriptions_expired", unused.len() as i64).map(drop)
        })
    }

    /// Removes one batch of expired events. True if there may be more.
    fn remove_expired_events(&self, reader: &Connection) -> Result<bool, BackendError> {
        let retention = self.member.settings.retention;
        let Some(oldest) = SystemTime::now().checked_sub(retention) else { return Ok(false) };
        let batch = params![time_text(oldest), CLEAN_UP_BATCH as i64];
        let expired = reader
            .prepare_cached(&self.tables.sql.expired)
            .and_then(|mut expired| {
                expired.query_map(batch, |row| Ok(id(row, 0)?))?.collect::<rusqlite::Result<Vec<_>>>()
            })
            .map_err(|error| backend_error(&error))?;
        if expired.is_empty() {
            return Ok(false);
        }
        self.tables.file.write(Sync::Later, |transaction| {
            let mut dead = 0;
            for id in &expired {
                dead += self.tables.delete_event(transaction, id)?.1;
            }
            if dead > 0 {
                tracing::warn!(dead, ?retention, "dead letters were removed with their expired events");
                self.tables.add_to_counter(transaction, "dead_letters_expired", dead)?;
            }
            Ok(())
        })?;
        Ok(expired.len() == CLEAN_UP_BATCH)
    }
}
