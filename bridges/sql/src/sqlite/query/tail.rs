//! Events as they come. SQLite has one writer at a time, so positions are committed in their order, and nothing appears behind a
//! position that was read.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Tail};
use eventbroker::{Event, Pattern, StartPosition};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::sqlite::query::operator::matches;
use crate::sqlite::statements::rows;
use crate::sqlite::transport::connection::{Database, backend_error};
use crate::sqlite::transport::watcher::Watcher;

#[derive(Debug)]
pub(crate) struct SqliteTail {
    database: Arc<Database>,
    reader: Connection,
    watcher: Watcher,
    query: String,
    /// What the query is bound to, behind the two positions, the time and the limit.
    values: Vec<Value>,
    /// Nothing before this time is shown.
    since: String,
    /// Everything up to here was read.
    position: i64,
}

impl SqliteTail {
    pub(crate) fn new(
        database: &Arc<Database>,
        pattern: &Pattern,
        start: &StartPosition,
    ) -> Result<Self, BackendError> {
        let reader = database.reader().map_err(|error| BackendError::Unavailable(error.to_string()))?;
        let position = match start {
            StartPosition::New => database.last_position(&reader).map(Some),
            StartPosition::After(id) => database.position(&reader, id),
            _ => Ok(Some(0)),
        };
        let position = position.map_err(|error| backend_error(&error))?;
        let position = position.ok_or_else(|| BackendError::Refused(format!("the event of {start:?} is not held")))?;
        let since = if let StartPosition::From(time) = start { rows::time_text(*time) } else { String::new() };
        // The first four are set anew for each call.
        let mut values = vec![Value::Null; 4];
        let matching = matches("e.type", pattern, &mut values);
        let select = &database.sql.select;
        let query = format!(
            "{select} WHERE e.position > ?1 AND e.position <= ?2 AND e.created_at >= ?3 AND {matching} \
             ORDER BY e.position LIMIT ?4"
        );
        let database = Arc::clone(database);
        Ok(Self { database, reader, watcher: Watcher::default(), query, values, since, position })
    }

    fn read(&mut self, max: usize) -> rusqlite::Result<Vec<Event>> {
        let reader = self.reader.unchecked_transaction()?;
        let last = self.database.last_position(&reader)?;
        let mut values = self.values.clone();
        values[0] = Value::Integer(self.position);
        values[1] = Value::Integer(last);
        values[2] = Value::Text(self.since.clone());
        values[3] = Value::Integer(max as i64);
        let mut statement = reader.prepare_cached(&self.query)?;
        let rows =
            statement.query_map(params_from_iter(values), |row| Ok((rows::id(row), rows::event_with_progress(row))))?;
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        self.position = match rows.last().filter(|_| rows.len() == max) {
            Some((Ok(id), _)) => self.database.position(&reader, id)?.unwrap_or(last),
            _ => last,
        };
        // As in a listing, what is no event is not shown.
        Ok(rows.into_iter().filter_map(|(_, event)| event.ok()).collect())
    }
}

impl Tail for SqliteTail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            // Before the look at the table, so that what comes after that is noticed.
            self.watcher.is_changed(&self.reader).map_err(|error| backend_error(&error))?;
            let events = self.read(max).map_err(|error| backend_error(&error))?;
            if !events.is_empty() {
                self.watcher.found();
                return Ok(events);
            }
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Vec::new());
                }
                thread::sleep(self.watcher.pause().min(left));
                if self.watcher.is_changed(&self.reader).map_err(|error| backend_error(&error))? {
                    break;
                }
            }
        }
    }
}
