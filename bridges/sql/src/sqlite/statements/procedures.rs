//! The steps that take several statements. Each runs in the transaction of its caller.

use std::collections::BTreeSet;
use std::time::SystemTime;

use eventbroker::EventId;
use rusqlite::{Connection, OptionalExtension, Params, Transaction, params};

use super::Statements;
use crate::columns::time_text;
use crate::sqlite::transport::DatabaseFile;

/// The state of a dead delivery, as in `schema.sql`.
const DEAD: i64 = 3;

/// The tables of one file: the file, and the statements on them.
pub(crate) struct Tables {
    pub(crate) file: DatabaseFile,
    pub(crate) sql: Statements,
}

/// Runs a statement that is prepared once. Returns the number of changed rows.
pub(crate) fn execute(connection: &Connection, statement: &str, values: impl Params) -> rusqlite::Result<usize> {
    connection.prepare_cached(statement)?.execute(values)
}

impl Tables {
    /// Derives the statuses of events from their deliveries.
    pub(crate) fn refresh_statuses(
        &self,
        transaction: &Transaction<'_>,
        positions: &BTreeSet<i64>,
    ) -> rusqlite::Result<()> {
        let now = time_text(SystemTime::now());
        let mut complete = transaction.prepare_cached(&self.sql.complete_event)?;
        let mut is_open = transaction.prepare_cached(&self.sql.is_event_open)?;
        let mut refresh = transaction.prepare_cached(&self.sql.refresh_status)?;
        for position in positions {
            // With many subscriptions most verdicts do not change the status, so the deliveries are rarely counted.
            if complete.execute(params![position, now])? == 0 && !is_open.exists([position])? {
                refresh.execute(params![position, now])?;
            }
        }
        Ok(())
    }

    /// Adds to a counter that all providers of the file share. Returns its new value.
    pub(crate) fn add_to_counter(&self, transaction: &Transaction<'_>, name: &str, by: i64) -> rusqlite::Result<i64> {
        transaction.prepare_cached(&self.sql.add_to_counter)?.query_row(params![name, by], |row| row.get(0))
    }

    /// Removes a subscription and its deliveries.
    pub(crate) fn forget(&self, transaction: &Transaction<'_>, subscription: i64) -> rusqlite::Result<()> {
        execute(transaction, &self.sql.delete_subscription, [subscription])?;
        let mut forget = transaction.prepare_cached(&self.sql.forget_deliveries)?;
        let positions = forget.query_map([subscription], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        self.refresh_statuses(transaction, &positions)
    }

    /// Removes an event and its deliveries. Returns whether the event existed, and the number of its dead letters.
    pub(crate) fn delete_event(&self, transaction: &Transaction<'_>, id: &EventId) -> rusqlite::Result<(bool, i64)> {
        let id = id.to_string();
        let mut deliveries = transaction.prepare_cached(&self.sql.delete_deliveries)?;
        let states = deliveries.query_map([&id], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        let dead = states.into_iter().filter(|state| *state == DEAD).count() as i64;
        Ok((execute(transaction, &self.sql.delete_event, [&id])? > 0, dead))
    }

    /// The position of an event.
    pub(crate) fn position(&self, connection: &Connection, id: &EventId) -> rusqlite::Result<Option<i64>> {
        connection.prepare_cached(&self.sql.position)?.query_row([id.to_string()], |row| row.get(0)).optional()
    }

    /// The position of the newest event.
    pub(crate) fn last_position(&self, connection: &Connection) -> rusqlite::Result<i64> {
        connection.prepare_cached(&self.sql.last_position)?.query_row([], |row| row.get(0))
    }
}
