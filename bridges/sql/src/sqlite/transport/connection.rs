//! The connections of one provider to the file: one writes, the others read.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use eventbroker::provider::BackendError;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::settings::OpenError;

/// How long a statement waits for another process.
pub(crate) const BUSY_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two attempts while another process writes. SQLite's own pauses grow to 100 ms.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_micros(500);
/// The number of prepared statements that a connection keeps.
const STATEMENTS: usize = 64;

/// The file, and the connection that writes.
pub(crate) struct DatabaseFile {
    path: PathBuf,
    writer: Mutex<Writer>,
}

struct Writer {
    connection: Connection,
    /// The mode that the connection is in, if it is known.
    sync: Option<Sync>,
}

/// Whether a commit has reached the disk when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Full,
    Later,
}

impl DatabaseFile {
    /// Opens the file, which `prepare` makes ready.
    pub(crate) fn open(
        path: &Path,
        prepare: impl FnOnce(&mut Connection) -> Result<(), OpenError>,
    ) -> Result<Self, OpenError> {
        let mut connection = connect(path, false).map_err(|error| file_error(path, &error))?;
        prepare(&mut connection)?;
        Ok(Self { path: path.to_owned(), writer: Mutex::new(Writer { connection, sync: None }) })
    }

    /// A new connection that only reads.
    pub(crate) fn connect_reader(&self) -> Result<Connection, OpenError> {
        connect(&self.path, true).map_err(|error| file_error(&self.path, &error))
    }

    /// A new connection that only reads, for several threads.
    pub(crate) fn reader(&self) -> Result<Reader, OpenError> {
        self.connect_reader().map(|connection| Reader(Mutex::new(connection)))
    }

    /// Runs `work` in one transaction, which is rolled back if anything in it fails.
    pub(crate) fn write<T>(
        &self,
        sync: Sync,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        let mut writer = self.writer.lock();
        let result = writer.set_sync(sync).and_then(|()| {
            let transaction = writer.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        });
        result.map_err(|error| backend_error(&error))
    }
}

impl Writer {
    fn set_sync(&mut self, sync: Sync) -> rusqlite::Result<()> {
        if self.sync == Some(sync) {
            return Ok(());
        }
        self.sync = None;
        self.connection.execute_batch(match sync {
            Sync::Full => "PRAGMA synchronous = FULL",
            Sync::Later => "PRAGMA synchronous = NORMAL",
        })?;
        self.sync = Some(sync);
        Ok(())
    }
}

/// A connection that only reads, for several threads.
pub(crate) struct Reader(Mutex<Connection>);

impl Reader {
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, BackendError> {
        work(&self.0.lock()).map_err(|error| backend_error(&error))
    }
}

fn connect(path: &Path, read_only: bool) -> rusqlite::Result<Connection> {
    let access = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    // The path is never read as a URI. Each connection is used under a lock or by one thread.
    let mut connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_handler(Some(wait_while_busy))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Waits for another process that writes. Its transactions are short.
fn wait_while_busy(tries: i32) -> bool {
    if BUSY_PAUSE * u32::try_from(tries).unwrap_or(0) > BUSY_LIMIT {
        return false;
    }
    thread::sleep(BUSY_PAUSE);
    true
}

/// The error of a call: whether another attempt can succeed.
pub(crate) fn backend_error(error: &rusqlite::Error) -> BackendError {
    let reason = format!("SQLite: {error}");
    match error.sqlite_error_code() {
        Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::ParameterOutOfRange,
        ) => BackendError::Refused(reason),
        // The file is busy, full, unreadable for the moment or replaced: an operator can repair that.
        _ => BackendError::Unavailable(reason),
    }
}

/// The error of opening the file.
pub(crate) fn file_error(path: &Path, error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Unavailable(format!("SQLite file {}: {error}", path.display()))
}
