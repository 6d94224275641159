//! One provider's hold on the file: the connection that writes, and those that read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use eventbroker::provider::BackendError;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use crate::backlog::Backlog;
use crate::bell::Bell;
use crate::names::TableName;
use crate::sqlite::OpenError;
use crate::sqlite::Sqlite;
use crate::sqlite::membership::process;
use crate::sqlite::schema;
use crate::sqlite::statements::Statements;
use crate::sqlite::transport::clock;

/// How long a statement waits for another process.
const BUSY: Duration = Duration::from_secs(5);
/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 64;

/// What all parts of a provider share.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) path: PathBuf,
    pub(crate) sql: Statements,
    pub(crate) group: String,
    pub(crate) lease_time: Duration,
    pub(crate) retention: Duration,
    pub(crate) idle_expiry: Duration,
    pub(crate) backlog: Backlog,
    /// Tells this provider from others that share the file.
    pub(crate) member: String,
    /// The same, with what tells others whether its process lives.
    pub(crate) holder: String,
    /// The subscriptions that this provider serves, by name, and the instance that each belongs to.
    pub(crate) served: Mutex<HashMap<Arc<str>, String>>,
    writer: Mutex<Writer>,
    pub(crate) bell: Bell,
    /// What the leases that are held belong to.
    pub(crate) leases: Mutex<HashMap<u64, Row>>,
}

/// A row of the deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) position: i64,
    pub(crate) subscription: i64,
}

#[derive(Debug)]
struct Writer {
    connection: Connection,
    synced: Option<bool>,
}

/// Whether a commit has reached the disk when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Full,
    Later,
}

impl Database {
    pub(crate) fn open(settings: &Sqlite, table: &TableName) -> Result<Self, OpenError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let path = settings.path.clone();
        let file = |error: &rusqlite::Error| OpenError::file(&path, error);
        let mut connection = connect(&path, false).map_err(|error| file(&error))?;
        schema::prepare(&mut connection, table, &path)?;
        let (pid, started, number) = (std::process::id(), clock::now_millis(), NEXT.fetch_add(1, Ordering::Relaxed));
        let member = format!("{pid}-{started}-{number}");
        Ok(Self {
            sql: Statements::new(table),
            group: settings.consumer_group.clone(),
            lease_time: settings.lease_time,
            retention: settings.retention,
            idle_expiry: settings.idle_expiry,
            backlog: Backlog::new(settings.max_backlog),
            holder: format!("{} {member}", process::this()),
            member,
            served: Mutex::default(),
            writer: Mutex::new(Writer { connection, synced: None }),
            bell: Bell::default(),
            leases: Mutex::default(),
            path,
        })
    }

    /// A connection that only reads.
    pub(crate) fn reader(&self) -> Result<Connection, OpenError> {
        connect(&self.path, true).map_err(|error| OpenError::file(&self.path, &error))
    }

    /// Writes in one transaction, which is undone as a whole if anything in it fails.
    pub(crate) fn write<T>(
        &self,
        sync: Sync,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        let mut writer = self.writer.lock();
        let Writer { connection, synced } = &mut *writer;
        let result = (|| {
            if *synced != Some(sync == Sync::Full) {
                *synced = None;
                connection.execute_batch(if sync == Sync::Full {
                    "PRAGMA synchronous = FULL"
                } else {
                    "PRAGMA synchronous = NORMAL"
                })?;
                *synced = Some(sync == Sync::Full);
            }
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })();
        result.map_err(|error| backend_error(&error))
    }

    /// Adds to one of the counters that all providers of the file share. Returns its new value.
    pub(crate) fn count(&self, transaction: &Transaction<'_>, name: &str, by: i64) -> rusqlite::Result<i64> {
        transaction.prepare_cached(&self.sql.count)?.query_row(params![name, by], |row| row.get(0))
    }

    pub(crate) fn lease_millis(&self) -> i64 {
        i64::try_from(self.lease_time.as_millis()).unwrap_or(i64::MAX / 2)
    }
}

fn connect(path: &Path, read_only: bool) -> rusqlite::Result<Connection> {
    let access = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    // A path is a path, also if it looks like a URI; and each connection is used under a lock or by one thread.
    let mut connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_handler(Some(wait_while_busy))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Another process writes: its transactions are short, so it is asked again soon. SQLite's own pauses grow to 100 ms.
fn wait_while_busy(tries: i32) -> bool {
    const PAUSE: Duration = Duration::from_micros(500);
    if PAUSE * u32::try_from(tries).unwrap_or(0) > BUSY {
        return false;
    }
    thread::sleep(PAUSE);
    true
}

/// What a failure means to the engine: whether it pays to try again.
pub(crate) fn backend_error(error: &rusqlite::Error) -> BackendError {
    let reason = format!("SQLite: {error}");
    match error.sqlite_error_code() {
        Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::ParameterOutOfRange,
        ) => BackendError::Refused(reason),
        // Busy, full, unreadable for the moment, replaced by somebody: an operator may put it right.
        _ => BackendError::Unavailable(reason),
    }
}
