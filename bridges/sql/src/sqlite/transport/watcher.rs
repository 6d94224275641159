//! Noticing what other connections store: `PRAGMA data_version` changes with each of their commits. It is looked at each millisecond
//! while events come, and the less often the longer none does.

use std::time::Duration;

use rusqlite::Connection;

/// Time between two looks, while there is something to see and when there is not.
const SHORTEST_POLL: Duration = Duration::from_millis(1);
const LONGEST_POLL: Duration = Duration::from_millis(56);
/// Looks after the last change before they become rarer.
const EAGER_POLLS: u32 = 100;

#[derive(Debug, Default)]
pub(crate) struct Watcher {
    version: i64,
    /// Looks without anything new.
    quiet: u32,
}

impl Watcher {
    /// Whether another connection has committed something since this was asked last.
    pub(crate) fn is_changed(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let version = connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        let changed = std::mem::replace(&mut self.version, version) != version;
        self.quiet = if changed { 0 } else { self.quiet.saturating_add(1) };
        Ok(changed)
    }

    /// Something was found by other means.
    pub(crate) fn found(&mut self) {
        self.quiet = 0;
    }

    /// How long to wait until the next look.
    pub(crate) fn pause(&self) -> Duration {
        let doublings = self.quiet.saturating_sub(EAGER_POLLS).min(6);
        (SHORTEST_POLL * (1 << doublings)).min(LONGEST_POLL)
    }
}
