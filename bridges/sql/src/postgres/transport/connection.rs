//! A connection to the server: its transactions, and the statements that it has prepared.
//!
//! Behind a pooler a connection has a session of the server only while a transaction runs. So there each statement runs in a transaction
//! with the settings that it rests on, and none is prepared under a name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::BackendError;
use postgres::types::{ToSql, Type};
use postgres::{Client, Error, Row, Statement};

use super::activity::Activity;
use super::address::Address;
use super::error::is_stale;
use super::parameter::Parameter;
use super::session_settings::{self, BEGIN, SYNCED};

/// A connection that was idle for this long is checked before its next use.
const IDLE: Duration = Duration::from_secs(2);
/// How long such a check may take.
pub(super) const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// The number of prepared statements that a connection keeps.
const STATEMENTS: usize = 64;

/// A connection, and the statements that it has prepared.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) activity: Arc<Activity>,
    /// The departures of the address before this session was made.
    pub(crate) departures: u64,
    /// Nobody has checked yet whether the server still has everything that it had confirmed.
    pub(crate) is_new: bool,
    /// A pooler may give the session to another client after each transaction.
    is_pooled: bool,
    is_in_transaction: bool,
    prepared: HashMap<String, Statement>,
}

impl Session {
    /// Connects, unless the backoff has not passed.
    pub(crate) fn open(address: &Address) -> Result<Self, BackendError> {
        let (departures, is_pooled) = (address.departures(), address.is_pooled());
        address.backoff.attempt(|| address.connect(move |client| Self::prepare(client, is_pooled, departures)))
    }

    fn prepare(mut client: Client, is_pooled: bool, departures: u64) -> Result<Self, Error> {
        let activity = Arc::new(Activity::new());
        if !is_pooled {
            client.batch_execute(&session_settings::statement(false))?;
            activity.find_session(&mut client)?;
        }
        let (is_in_transaction, prepared) = (false, HashMap::new());
        Ok(Self { client, activity, departures, is_new: true, is_pooled, is_in_transaction, prepared })
    }

    /// Whether the connection can be used. An idle one may have been cut silently, and the next call should not fail for that.
    pub(crate) fn is_alive(&mut self) -> bool {
        let is_idle = self.activity.age() >= IDLE;
        self.activity.note();
        !self.client.is_closed() && (!is_idle || self.client.is_valid(CHECK_LIMIT).is_ok())
    }

    fn prepared(&mut self, query: &str, values: &[&dyn Parameter]) -> Result<Statement, Error> {
        if let Some(statement) = self.prepared.get(query) {
            return Ok(statement.clone());
        }
        if self.prepared.len() >= STATEMENTS {
            self.prepared.clear();
        }
        let types: Vec<Type> = values.iter().map(|value| value.sql_type()).collect();
        let statement = self.client.prepare_typed(query, &types)?;
        self.prepared.insert(query.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Runs a statement. Returns its rows.
    pub(crate) fn query(&mut self, query: &str, values: &[&dyn Parameter]) -> Result<Vec<Row>, Error> {
        self.statement(|session| {
            if session.is_pooled {
                return session.client.query_typed(query, &typed(values));
            }
            let statement = session.prepared(query, values)?;
            session.client.query(&statement, &bound(values))
        })
    }

    /// Runs a statement. Returns the number of changed rows.
    pub(crate) fn execute(&mut self, query: &str, values: &[&dyn Parameter]) -> Result<u64, Error> {
        self.statement(|session| {
            if session.is_pooled {
                return session.client.execute_typed(query, &typed(values));
            }
            let statement = session.prepared(query, values)?;
            session.client.execute(&statement, &bound(values))
        })
    }

    /// Runs one statement: in the open transaction, or in its own.
    fn statement<T>(&mut self, mut run: impl FnMut(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let mut run = |session: &mut Self| {
            session.activity.note();
            run(session)
        };
        if self.is_in_transaction {
            run(self)
        } else if self.is_pooled {
            self.between(&format!("{BEGIN}; {}", session_settings::statement(true)), run)
        } else {
            self.repeated(run)
        }
    }

    /// Runs `work` in one transaction, whose commit has reached the disk when the call returns. `work` may run twice, if the first
    /// transaction was rolled back.
    pub(crate) fn transaction<T>(&mut self, work: impl FnMut(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let settings = if self.is_pooled { session_settings::statement(true) } else { String::new() };
        self.between(&format!("{BEGIN}; {settings}; SELECT 1 WHERE {SYNCED}"), work)
    }

    /// The same, with `limit` for each statement and each lock.
    pub(crate) fn transaction_within<T>(
        &mut self,
        limit: Duration,
        mut work: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let limit = limit.as_millis();
        self.transaction(|session| {
            let limits = format!("SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}");
            session.client.batch_execute(&limits)?;
            work(session)
        })
    }

    /// Runs `work` between `begin` and a commit, or a rollback if it fails.
    fn between<T>(&mut self, begin: &str, mut work: impl FnMut(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.repeated(|session| {
            session.is_in_transaction = true;
            let result = session.begin(begin).and_then(|()| work(session));
            let result = result.and_then(|result| session.commit().map(|()| result));
            session.is_in_transaction = false;
            if result.is_err() && !session.client.is_closed() {
                // The first error is returned. If the rollback fails too, the connection is lost.
                let _ = session.client.batch_execute("ROLLBACK");
            }
            result
        })
    }

    fn begin(&mut self, begin: &str) -> Result<(), Error> {
        self.activity.note();
        if self.is_pooled { self.activity.begin(&mut self.client, begin) } else { self.client.batch_execute(begin) }
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.activity.note();
        self.client.batch_execute("COMMIT")
    }

    /// Runs `work`, and once more if a statement was planned for columns that have changed since.
    fn repeated<T>(&mut self, mut work: impl FnMut(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        work(self).or_else(|error| {
            if !is_stale(&error) {
                return Err(error);
            }
            self.prepared.clear();
            work(self)
        })
    }
}

fn bound<'a>(values: &[&'a dyn Parameter]) -> Vec<&'a (dyn ToSql + Sync)> {
    values.iter().map(|value| value.as_sql()).collect()
}

fn typed<'a>(values: &[&'a dyn Parameter]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    values.iter().map(|value| (value.as_sql(), value.sql_type())).collect()
}
