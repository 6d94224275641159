//! The activity of a connection, as this process and the server see it.
//!
//! A connection has a session of the server for itself. Behind a pooler it has one only while a transaction runs, and afterwards the same
//! session works for other clients. So there the server is asked about the transaction.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postgres::{Client, Error, SimpleQueryMessage};

/// The states in which the server runs a statement. With `track_activities = off` it does not say.
const AT_WORK: &str = "state IN ('active', 'fastpath function call', 'disabled')";
/// The states in which the server waits for a statement.
const WAITING: &str = "state IN ('idle', 'idle in transaction', 'idle in transaction (aborted)')";
/// The condition of no row.
const NO_ROW: &str = "false";

/// A time as a number, which is the same in every session.
macro_rules! micros {
    ($time:literal) => {
        concat!("(extract(epoch FROM ", $time, ") * 1000000)::bigint")
    };
}

/// Selects the condition of the row of this session.
const SESSION: &str = concat!(
    "SELECT format('pid = %s AND ",
    micros!("backend_start"),
    " = %s', pid, ",
    micros!("backend_start"),
    ") FROM pg_stat_activity WHERE pid = pg_backend_pid()"
);
/// Selects the condition of the row of this session while the current transaction runs.
const TRANSACTION: &str = concat!(
    "SELECT format('pid = %s AND (",
    micros!("xact_start"),
    " = %s OR state = ''disabled'')', pg_backend_pid(), ",
    micros!("transaction_timestamp()"),
    ")"
);

/// When a connection was used last, and its row in `pg_stat_activity`.
pub(crate) struct Activity {
    used: Mutex<Instant>,
    /// The condition of the row. The number of a process alone may belong to another session later, or on another server.
    row: Mutex<String>,
}

impl Activity {
    /// The activity of a connection without a session of the server.
    pub(crate) fn new() -> Self {
        Self { used: Mutex::new(Instant::now()), row: Mutex::new(NO_ROW.to_owned()) }
    }

    /// Notes the session that the connection has for itself.
    pub(crate) fn find_session(&self, client: &mut Client) -> Result<(), Error> {
        self.set_row(last(client, SESSION)?);
        Ok(())
    }

    /// Begins a transaction behind a pooler with the statements `begin`, and notes which one it is. Until the answer, nothing was done for
    /// which the server would have to be asked.
    pub(crate) fn begin(&self, client: &mut Client, begin: &str) -> Result<(), Error> {
        self.set_row(None);
        self.set_row(last(client, &format!("{begin}; {TRANSACTION}"))?);
        Ok(())
    }

    fn set_row(&self, row: Option<String>) {
        *self.row.lock() = row.unwrap_or_else(|| NO_ROW.to_owned());
    }

    /// Notes that a statement begins. The one before has been answered.
    pub(crate) fn note(&self) {
        *self.used.lock() = Instant::now();
    }

    /// How long ago the last statement began.
    pub(crate) fn age(&self) -> Duration {
        self.used.lock().elapsed()
    }

    /// Asks through another connection whether the server runs a statement of this one.
    pub(crate) fn is_at_work(&self, other: &mut Client) -> Result<bool, Error> {
        let row = self.row.lock().clone();
        let question = format!("SELECT {AT_WORK} FROM pg_stat_activity WHERE {row}");
        Ok(last(other, &question)?.as_deref() == Some("t"))
    }

    /// Ends the session through another connection if the server waits for a statement there. A request that is still on its way has no
    /// effect then.
    pub(crate) fn end(&self, other: &mut Client) -> Result<(), Error> {
        let row = self.row.lock().clone();
        other
            .batch_execute(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {WAITING} AND {row}"))
    }
}

/// The first value of the last row of statements that are not prepared.
fn last(client: &mut Client, query: &str) -> Result<Option<String>, Error> {
    let answer = client.simple_query(query)?;
    let value = answer.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(value.map(str::to_owned))
}
