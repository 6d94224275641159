//! Detects commits of other connections: `PRAGMA data_version` changes with each of them. It is read each millisecond while events
//! come, and then more and more seldom.

use std::time::Duration;

use rusqlite::Connection;

/// The shortest and the longest pause between two polls.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(56);
/// The number of polls after the last change before the pauses grow.
const EAGER_POLLS: u32 = 100;

#[derive(Debug, Default)]
pub(crate) struct Watcher {
    version: i64,
    /// The number of polls since the last change.
    quiet_polls: u32,
}

impl Watcher {
    /// Polls: whether another connection has committed since the last poll.
    pub(crate) fn poll(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let version = connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        let has_changed = std::mem::replace(&mut self.version, version) != version;
        self.quiet_polls = if has_changed { 0 } else { self.quiet_polls.saturating_add(1) };
        Ok(has_changed)
    }

    /// Makes the pauses short again, because an event was found.
    pub(crate) fn reset_pause(&mut self) {
        self.quiet_polls = 0;
    }

    /// The pause before the next poll.
    pub(crate) fn pause(&self) -> Duration {
        let doublings = self.quiet_polls.saturating_sub(EAGER_POLLS).min(6);
        (SHORTEST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE)
    }
}
