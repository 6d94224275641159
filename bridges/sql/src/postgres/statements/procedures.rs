//! A connection with the statements, and the removal of a subscription.

use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::BackendError;
use postgres::Error;

use super::Statements;
use crate::postgres::transport::{CALL_LIMIT, Links, Session};

/// The longest time in a statement, near PostgreSQL's own bound.
const LONGEST_TIME: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// The number of deliveries that one transaction removes.
const FORGET_BATCH: i32 = 5_000;

/// The tables of one database: connections, and the statements on them.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) links: Links,
    pub(crate) sql: Arc<Statements>,
}

/// Work with a connection, to be done in a call.
pub(crate) type Work = Box<dyn FnOnce(&mut Session, &Statements) -> Result<(), Error> + Send>;

impl Tables {
    /// Runs `work` on the thread of a connection, and waits for it.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session, &Statements) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, BackendError> {
        self.call_within(CALL_LIMIT, work)
    }

    pub(crate) fn call_within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Session, &Statements) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, BackendError> {
        let sql = Arc::clone(&self.sql);
        self.links.call_within(limit, move |session| work(session, &sql))
    }
}

/// Removes a subscription, and its deliveries that are open or dead.
pub(crate) fn forget(session: &mut Session, sql: &Statements, subscription: i64) -> Result<(), Error> {
    session.execute(&sql.delete_subscription, &[&subscription])?;
    loop {
        let rows = session.query(&sql.forget_deliveries, &[&subscription, &FORGET_BATCH])?;
        if rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0))? == 0 {
            return Ok(());
        }
    }
}

/// A time as `make_interval` takes it.
pub(crate) fn seconds(time: Duration) -> f64 {
    time.min(LONGEST_TIME).as_secs_f64()
}
