//! A connection to the server, with the statements that it has prepared.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::BackendError;
use postgres::types::ToSql;
use postgres::{Client, Error, Row, Statement};

use super::activity::Activity;
use super::address::Address;

/// The limits of the server on a statement and on the wait for a lock.
const TIMEOUTS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'";
/// A connection that was idle for this long is checked before its next use.
const IDLE: Duration = Duration::from_secs(2);
/// How long such a check may take.
pub(super) const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// The number of prepared statements that a connection keeps.
const STATEMENTS: usize = 64;

/// Whether a commit has reached the server's disk when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Full,
    Later,
}

/// A value to bind.
pub(crate) type Value<'a> = Box<dyn ToSql + std::marker::Sync + Send + 'a>;

/// The values as a statement takes them.
pub(crate) fn references<'a>(values: &'a [Value<'_>]) -> Vec<&'a (dyn ToSql + std::marker::Sync)> {
    values.iter().map(|value| &**value as &(dyn ToSql + std::marker::Sync)).collect()
}

/// A connection, and the statements that it has prepared.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) activity: Arc<Activity>,
    /// The departures of the address before this session was made.
    pub(crate) departures: u64,
    /// Nobody has checked yet whether the server still has everything that it had confirmed.
    pub(crate) is_new: bool,
    prepared: HashMap<String, Statement>,
}

impl Session {
    /// Connects, unless the backoff has not passed.
    pub(crate) fn open(address: &Address, sync: Sync) -> Result<Self, BackendError> {
        let departures = address.departures();
        address.backoff.attempt(|| address.connect(move |client| Self::prepare(client, sync, departures)))
    }

    fn prepare(mut client: Client, sync: Sync, departures: u64) -> Result<Self, Error> {
        // The statistics of tables that fill and empty mislead the planner. Every statement finds its rows by an index.
        client.batch_execute(TIMEOUTS)?;
        client.batch_execute(
            "SET idle_in_transaction_session_timeout = '15s'; SET client_min_messages = 'warning'; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; \
             SET timezone = 'UTC'",
        )?;
        match sync {
            Sync::Later => client.batch_execute("SET synchronous_commit = off")?,
            // A stricter setting of the role stays.
            Sync::Full => client.batch_execute(
                "SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
            )?,
        }
        let activity = Arc::new(Activity::of(&mut client)?);
        Ok(Self { client, activity, departures, is_new: true, prepared: HashMap::new() })
    }

    /// Whether the connection can be used. An idle one may have been cut silently, and the next call should not fail for that.
    pub(crate) fn is_alive(&mut self) -> bool {
        let is_idle = self.activity.age() >= IDLE;
        self.activity.note();
        !self.client.is_closed() && (!is_idle || self.client.is_valid(CHECK_LIMIT).is_ok())
    }

    fn prepared(&mut self, query: &str) -> Result<Statement, Error> {
        self.activity.note();
        if let Some(statement) = self.prepared.get(query) {
            return Ok(statement.clone());
        }
        if self.prepared.len() >= STATEMENTS {
            self.prepared.clear();
        }
        let statement = self.client.prepare(query)?;
        self.prepared.insert(query.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Runs a statement, which is prepared once. Returns its rows.
    pub(crate) fn query(
        &mut self,
        query: &str,
        values: &[&(dyn ToSql + std::marker::Sync)],
    ) -> Result<Vec<Row>, Error> {
        let statement = self.prepared(query)?;
        self.client.query(&statement, values)
    }

    /// Runs a statement, which is prepared once. Returns the number of changed rows.
    pub(crate) fn execute(&mut self, query: &str, values: &[&(dyn ToSql + std::marker::Sync)]) -> Result<u64, Error> {
        let statement = self.prepared(query)?;
        self.client.execute(&statement, values)
    }

    /// Runs `work` in one transaction, whose commit has reached the disk when the call returns.
    pub(crate) fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.client.batch_execute("BEGIN; SET LOCAL synchronous_commit = on")?;
        let result = work(self).and_then(|result| self.client.batch_execute("COMMIT").map(|()| result));
        if result.is_err() && !self.client.is_closed() {
            // The first error is returned. If the rollback fails too, the connection is lost.
            let _ = self.client.batch_execute("ROLLBACK");
        }
        result
    }

    /// Runs `work` with one minute for each statement and each lock.
    pub(crate) fn patiently<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.client.batch_execute("SET lock_timeout = '60s'; SET statement_timeout = '60s'")?;
        let result = work(self)?;
        self.client.batch_execute(TIMEOUTS)?;
        Ok(result)
    }
}
