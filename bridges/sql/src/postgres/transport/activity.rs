//! The activity of a session, as this process and the server see it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postgres::{Client, Error, SimpleQueryMessage};

/// The states in which the server runs a statement. With `track_activities = off` it does not say.
const AT_WORK: &str = "state IN ('active', 'fastpath function call', 'disabled')";

/// When a session was used last, and its row in `pg_stat_activity`.
pub(crate) struct Activity {
    used: Mutex<Instant>,
    /// The condition of the row. The number of a process alone may belong to another session later, or on another server.
    row: String,
}

impl Activity {
    pub(crate) fn of(client: &mut Client) -> Result<Self, Error> {
        let row = first(
            client,
            "SELECT format('pid = %s AND backend_start = %L', pid, backend_start) \
             FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        )?;
        Ok(Self { used: Mutex::new(Instant::now()), row: row.unwrap_or_else(|| "false".to_owned()) })
    }

    /// Notes that a statement begins. The one before has been answered.
    pub(crate) fn note(&self) {
        *self.used.lock() = Instant::now();
    }

    /// How long ago the last statement began.
    pub(crate) fn age(&self) -> Duration {
        self.used.lock().elapsed()
    }

    /// Asks through another session whether the server runs a statement of this one.
    pub(crate) fn is_at_work(&self, other: &mut Client) -> Result<bool, Error> {
        let question = format!("SELECT {AT_WORK} FROM pg_stat_activity WHERE {}", self.row);
        Ok(first(other, &question)?.as_deref() == Some("t"))
    }

    /// Ends this session through another one if it waits for a statement. A request that is still on its way has no effect then.
    pub(crate) fn end(&self, other: &mut Client) -> Result<(), Error> {
        let row = &self.row;
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle' AND {row}");
        other.batch_execute(&end)
    }
}

/// The first value of a statement that is not prepared.
fn first(client: &mut Client, query: &str) -> Result<Option<String>, Error> {
    let answer = client.simple_query(query)?;
    let value = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(value.map(str::to_owned))
}
