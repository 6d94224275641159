//! Registers and removes subscriptions.

use std::sync::Arc;
use std::time::SystemTime;

use eventbroker::StartPosition;
use eventbroker::provider::{BackendError, Registration};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::columns::time_text;
use crate::member::Member;
use crate::pattern::PatternColumns;
use crate::record::SubscriptionRecord;
use crate::sqlite::statements::{Tables, columns, execute};
use crate::sqlite::transport::{Sync, deadline};
use crate::subscriptions::REMOVE_AFTER;

/// The rows of the subscriptions that this provider serves.
pub(crate) struct Subscriptions {
    pub(crate) tables: Arc<Tables>,
    pub(crate) member: Arc<Member>,
}

impl Subscriptions {
    /// Registers a subscription. `instance` is the name of this instance.
    pub(crate) fn register(&self, registration: &Registration, instance: &str) -> Result<(), BackendError> {
        let record = SubscriptionRecord::new(registration, &self.member, instance, columns)?;
        let registered = self.tables.file.write(Sync::Full, |transaction| self.write(transaction, &record))?;
        registered.map_err(BackendError::Refused)?;
        self.member.subscriptions.insert(&record.name, record.instance);
        Ok(())
    }

    /// Makes or changes the row of a subscription. The inner error says why it is refused.
    fn write(
        &self,
        transaction: &Transaction<'_>,
        record: &SubscriptionRecord,
    ) -> rusqlite::Result<Result<(), String>> {
        let sql = &self.tables.sql;
        let SubscriptionRecord { group, name, instance, pattern, .. } = record;
        let PatternColumns { final_rest, dots, glob, literals } = &record.columns;
        let dots = *dots as i64;
        let known: Option<(i64, String)> = transaction
            .prepare_cached(&sql.subscription)?
            .query_row(params![group, name, instance], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let id = if let Some((id, known)) = known {
            match record.changes_pattern(&known) {
                Err(problem) => return Ok(Err(problem)),
                Ok(true) => {
                    let changed = params![id, pattern, final_rest, dots, glob, literals];
                    execute(transaction, &sql.change_pattern, changed)?;
                }
                Ok(false) => {}
            }
            id
        } else {
            let (after, since) = match &record.start {
                StartPosition::After(id) => match self.tables.position(transaction, id)? {
                    Some(position) => (position, String::new()),
                    None => return Ok(Err(record.start_not_held())),
                },
                StartPosition::From(time) => (0, time_text(*time)),
                _ => (0, String::new()),
            };
            let row = params![group, name, instance, pattern, final_rest, dots, glob, literals, record.durable];
            let id = transaction.prepare_cached(&sql.insert_subscription)?.query_row(row, |row| row.get(0))?;
            if record.start != StartPosition::New {
                execute(transaction, &sql.backfill, params![id, after, since])?;
            }
            id
        };
        let alive_until = record.owner.as_ref().map(|_| self.alive_until());
        execute(transaction, &sql.record_owner, params![id, record.owner, alive_until, time_text(SystemTime::now())])?;
        Ok(Ok(()))
    }

    /// When a broadcast subscription is removed if its provider sends no further heartbeat.
    fn alive_until(&self) -> i64 {
        deadline(self.member.settings.lease_time.saturating_mul(REMOVE_AFTER))
    }

    /// Stops serving a subscription. A broadcast that is not durable is removed.
    pub(crate) fn unregister(&self, name: &str) -> Result<(), BackendError> {
        if self.member.subscriptions.instance_of(name).as_deref() == Some(&*self.member.id) {
            self.tables.file.write(Sync::Later, |transaction| self.remove_of(transaction, name, &self.member.id))?;
        }
        self.member.subscriptions.remove(name);
        Ok(())
    }

    /// Removes the group's subscription of this name and this instance's durable broadcast. False if there was neither.
    pub(crate) fn remove(&self, name: &str, instance: &str) -> Result<bool, BackendError> {
        self.tables.file.write(Sync::Later, |transaction| {
            let shared = self.remove_of(transaction, name, "")?;
            Ok(self.remove_of(transaction, name, instance)? || shared)
        })
    }

    fn remove_of(&self, transaction: &Transaction<'_>, name: &str, instance: &str) -> rusqlite::Result<bool> {
        let mut subscription = transaction.prepare_cached(&self.tables.sql.subscription)?;
        let id = subscription
            .query_row([&*self.member.settings.consumer_group, name, instance], |row| row.get(0))
            .optional()?;
        id.map_or(Ok(false), |id| self.tables.forget(transaction, id).map(|()| true))
    }

    /// Removes the broadcast subscriptions that only this provider has served.
    pub(crate) fn remove_owned(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut statement = transaction.prepare(&self.tables.sql.owned_subscriptions)?;
        let owned =
            statement.query_map([&self.member.id], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        owned.into_iter().try_for_each(|id| self.tables.forget(transaction, id))
    }

    /// Keeps the broadcast subscriptions of this provider alive.
    pub(crate) fn heartbeat(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let values = params![self.member.id, self.alive_until()];
        execute(transaction, &self.tables.sql.extend_broadcasts, values).map(drop)
    }

    /// Records that the subscriptions are used.
    pub(crate) fn record_use(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let now = time_text(SystemTime::now());
        let (names, instances) = self.member.subscriptions.all();
        for (name, instance) in names.iter().zip(&instances) {
            let values = params![self.member.settings.consumer_group, name, instance, now];
            execute(transaction, &self.tables.sql.record_use, values)?;
        }
        Ok(())
    }
}
