//! Follows the events as they come. SQLite has one writer at a time, so positions are committed in order: no event appears behind a
//! position that was read.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{self, BackendError};
use eventbroker::{Event, Pattern, StartPosition};
use rusqlite::Connection;

use crate::columns::{event_with_progress, id};
use crate::sqlite::statements::{Select, Tables};
use crate::sqlite::transport::{Watcher, backend_error};

/// Reads on from a position.
pub(crate) struct Tail {
    tables: Arc<Tables>,
    reader: Connection,
    watcher: Watcher,
    pattern: Pattern,
    /// The time of the oldest event to return.
    since: Option<SystemTime>,
    /// The last position that was read.
    position: i64,
}

impl Tail {
    pub(crate) fn new(tables: Arc<Tables>, pattern: &Pattern, start: &StartPosition) -> Result<Self, BackendError> {
        let reader = tables.file.connect_reader().map_err(|error| BackendError::Unavailable(error.to_string()))?;
        let position = match start {
            StartPosition::New => tables.last_position(&reader).map(Some),
            StartPosition::After(id) => tables.position(&reader, id),
            _ => Ok(Some(0)),
        };
        let position = position.map_err(|error| backend_error(&error))?;
        let position = position.ok_or_else(|| BackendError::Refused(format!("the event of {start:?} is not held")))?;
        let since = if let StartPosition::From(time) = start { Some(*time) } else { None };
        Ok(Self { tables, reader, watcher: Watcher::default(), pattern: pattern.clone(), since, position })
    }

    fn read(&mut self, max: usize) -> rusqlite::Result<Vec<Event>> {
        let reader = self.reader.unchecked_transaction()?;
        let last = self.tables.last_position(&reader)?;
        let mut select = Select::new(&self.tables.sql.select);
        select.and_number("e.position >", Some(self.position));
        select.and_number("e.position <=", Some(last));
        select.and_created(">=", self.since);
        select.and_matches(&self.pattern);
        select.order_and_limit("e.position", max);
        let rows = select.read(&reader, |row| Ok((id(row, 0), event_with_progress(row))))?;
        self.position = match rows.last().filter(|_| rows.len() == max) {
            Some((Ok(id), _)) => self.tables.position(&reader, id)?.unwrap_or(last),
            _ => last,
        };
        // A row of another program that is not an event is left out.
        Ok(rows.into_iter().filter_map(|(_, event)| event.ok()).collect())
    }
}

impl provider::Tail for Tail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            // The poll comes before the read, so that the next poll detects commits after the read.
            self.watcher.poll(&self.reader).map_err(|error| backend_error(&error))?;
            let events = self.read(max).map_err(|error| backend_error(&error))?;
            if !events.is_empty() {
                self.watcher.reset_pause();
                return Ok(events);
            }
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Vec::new());
                }
                thread::sleep(self.watcher.pause().min(left));
                if self.watcher.poll(&self.reader).map_err(|error| backend_error(&error))? {
                    break;
                }
            }
        }
    }
}
