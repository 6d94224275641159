//! Looking events up, listing them, and the statuses that come from elsewhere than from leases.

use std::collections::BTreeSet;
use std::sync::Arc;

use eventbroker::provider::{BackendError, EventStore, SendOutcome, StatusChange};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId, Status};
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Transaction, params, params_from_iter};

use crate::sqlite::OpenError;
use crate::sqlite::publish::mirror;
use crate::sqlite::settle::DEAD;
use crate::sqlite::statements::rows;
use crate::sqlite::transport::connection::{Database, Sync, backend_error};

#[derive(Debug)]
pub(crate) struct SqliteStore {
    database: Arc<Database>,
    reader: Mutex<Connection>,
}

impl SqliteStore {
    pub(crate) fn new(database: &Arc<Database>) -> Result<Self, OpenError> {
        Ok(Self { database: Arc::clone(database), reader: Mutex::new(database.reader()?) })
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, BackendError> {
        work(&self.reader.lock()).map_err(|error| backend_error(&error))
    }
}

impl Database {
    /// Removes an event with its deliveries. Returns whether it was there, and how many dead letters it had.
    pub(crate) fn delete(&self, transaction: &Transaction<'_>, id: &EventId) -> rusqlite::Result<(bool, i64)> {
        let id = id.to_string();
        let mut deliveries = transaction.prepare_cached(&self.sql.delete_deliveries)?;
        let states = deliveries.query_map([&id], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        let dead = states.into_iter().filter(|state| *state == DEAD).count() as i64;
        Ok((transaction.prepare_cached(&self.sql.delete)?.execute([&id])? > 0, dead))
    }
}

/// The conditions of a filter, and what they are about. One statement answers each filter: it walks an index in the order of ids.
fn conditions(filter: &Filter) -> (String, Vec<Value>) {
    let mut values = Vec::new();
    let mut text = String::new();
    let mut add = |condition: &str, value: Value| {
        values.push(value);
        let join = if values.len() == 1 { "WHERE" } else { "AND" };
        text.push_str(&format!(" {join} {condition} ?{}", values.len()));
    };
    let given = |text: &Option<String>| text.clone().map(Value::Text);
    let equal = [
        ("e.source =", filter.source.map(|source| Value::Text(source.as_str().to_owned()))),
        ("e.status =", filter.status.map(|status| Value::Text(status.as_str().to_owned()))),
        ("e.user_id =", filter.user_id.map(Value::Integer)),
        ("e.schema =", given(&filter.schema)),
        ("e.entity =", given(&filter.entity)),
        ("e.operation =", given(&filter.operation)),
        ("e.instance_id =", given(&filter.instance_id)),
        ("e.created_at >=", filter.created_from.map(|time| Value::Text(rows::time_text(time)))),
        ("e.created_at <=", filter.created_to.map(|time| Value::Text(rows::time_text(time)))),
    ];
    for (condition, value) in equal {
        value.into_iter().for_each(|value| add(condition, value));
    }
    if filter.status.is_some_and(|status| status != Status::Completed) {
        // So that the partial index serves, whatever value is bound.
        text.push_str(" AND e.status <> 'completed'");
    }
    let mut add = |condition: &str, value: Value| {
        values.push(value);
        let join = if values.len() == 1 { "WHERE" } else { "AND" };
        text.push_str(&format!(" {join} {condition} ?{}", values.len()));
    };
    if let Some(after) = &filter.after {
        let beyond = if filter.order == Order::OldestFirst { "e.id >" } else { "e.id <" };
        add(beyond, Value::Text(after.to_string()));
    }
    (text, values)
}

impl EventStore for SqliteStore {
    fn put(&self, event: &Event) -> Result<(), BackendError> {
        let database = &*self.database;
        let events = std::slice::from_ref(event);
        let outcomes = database.write(Sync::Full, |transaction| mirror::store(database, transaction, events))?;
        database.bell.stored();
        match outcomes.first() {
            Some(SendOutcome::Conflict) => {
                Err(BackendError::Refused(format!("event {} is known with other content", event.id())))
            }
            _ => Ok(()),
        }
    }

    fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError> {
        self.read(|reader| {
            let mut statement = reader.prepare_cached(&self.database.sql.by_id)?;
            statement.query_row([id.to_string()], rows::event_with_progress).optional()
        })
    }

    fn list(&self, filter: &Filter) -> Result<Page, BackendError> {
        let limit = filter.effective_limit();
        let (conditions, mut values) = conditions(filter);
        let order = if filter.order == Order::OldestFirst { "ASC" } else { "DESC" };
        values.push(Value::Integer(limit as i64));
        let select = &self.database.sql.select;
        let query = format!("{select}{conditions} ORDER BY e.id {order} LIMIT ?{}", values.len());
        let found = self.read(|reader| {
            let mut statement = reader.prepare_cached(&query)?;
            let rows = statement
                .query_map(params_from_iter(values), |row| Ok((rows::id(row), rows::event_with_progress(row))))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let last = found.last().filter(|_| found.len() == limit);
        let next = last.map(|(id, _)| id.as_ref().cloned().map_err(backend_error)).transpose()?;
        // What somebody else has inserted and is no event is not shown, and hides no other.
        let events = found.into_iter().filter_map(|(_, event)| event.ok()).collect();
        Ok(Page::new(events, next))
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError> {
        let database = &*self.database;
        database.write(Sync::Later, |transaction| {
            let mut positions = BTreeSet::new();
            for change in changes {
                let status = change.status.as_str();
                let told = params![change.id.to_string(), database.member, status, change.error, change.retry_count];
                let mut tell = transaction.prepare_cached(&database.sql.tell)?;
                positions.extend(tell.query_row(told, |row| row.get::<_, i64>(0)).optional()?);
            }
            database.refresh(transaction, &positions)
        })
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        let database = &*self.database;
        database.write(Sync::Later, |transaction| Ok(database.delete(transaction, id)?.0))
    }

    fn stats(&self) -> Result<StoreStats, BackendError> {
        let counts = self.read(|reader| {
            let mut statement = reader.prepare_cached(&self.database.sql.counts)?;
            let counts = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64)))?;
            counts.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut stats = StoreStats::default();
        for (status, count) in counts {
            stats.events += count;
            match status.parse() {
                Ok(Status::Pending) => stats.pending = count,
                Ok(Status::Processing) => stats.processing = count,
                Ok(Status::Completed) => stats.completed = count,
                Ok(Status::Failed) => stats.failed = count,
                Err(_) => {}
            }
        }
        Ok(stats)
    }
}
