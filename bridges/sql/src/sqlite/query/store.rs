//! Looks events up, lists and deletes them, and records the statuses of local deliveries.

use std::collections::BTreeSet;
use std::slice;
use std::sync::Arc;

use eventbroker::provider::{BackendError, EventStore, SendOutcome, StatusChange};
use eventbroker::query::{Filter, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId};
use rusqlite::{OptionalExtension, params};

use crate::columns::{event_with_progress, id, store_stats};
use crate::member::Member;
use crate::settings::OpenError;
use crate::sqlite::publish::Mirror;
use crate::sqlite::statements::{Select, Tables};
use crate::sqlite::transport::{Reader, Sync, backend_error};

/// The events of one file.
pub(crate) struct Store {
    tables: Arc<Tables>,
    member: Arc<Member>,
    mirror: Mirror,
    reader: Reader,
}

impl Store {
    pub(crate) fn new(tables: Arc<Tables>, member: Arc<Member>, mirror: Mirror) -> Result<Self, OpenError> {
        Ok(Self { reader: tables.file.reader()?, tables, member, mirror })
    }
}

impl EventStore for Store {
    fn put(&self, event: &Event) -> Result<(), BackendError> {
        match self.mirror.store(slice::from_ref(event))?.first() {
            Some(SendOutcome::Conflict) => {
                Err(BackendError::Refused(format!("event {} is known with other content", event.id())))
            }
            _ => Ok(()),
        }
    }

    fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError> {
        self.reader.read(|reader| {
            let mut by_id = reader.prepare_cached(&self.tables.sql.by_id)?;
            by_id.query_row([id.to_string()], |row| Ok(event_with_progress(row)?)).optional()
        })
    }

    fn list(&self, filter: &Filter) -> Result<Page, BackendError> {
        let mut select = Select::new(&self.tables.sql.select);
        select.filter(filter);
        let found = self.reader.read(|reader| select.read(reader, |row| Ok((id(row, 0), event_with_progress(row)))))?;
        let last = found.last().filter(|_| found.len() == filter.effective_limit());
        let next = last.map(|(id, _)| id.clone().map_err(|error| backend_error(&error.into()))).transpose()?;
        // A row of another program that is not an event is left out.
        let events = found.into_iter().filter_map(|(_, event)| event.ok()).collect();
        Ok(Page::new(events, next))
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError> {
        self.tables.file.write(Sync::Later, |transaction| {
            let mut positions = BTreeSet::new();
            let mut record = transaction.prepare_cached(&self.tables.sql.record_local_status)?;
            for change in changes {
                let (id, status) = (change.id.to_string(), change.status.as_str());
                let values = params![id, self.member.id, status, change.error, change.retry_count];
                positions.extend(record.query_row(values, |row| row.get::<_, i64>(0)).optional()?);
            }
            self.tables.refresh_statuses(transaction, &positions)
        })
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        self.tables.file.write(Sync::Later, |transaction| Ok(self.tables.delete_event(transaction, id)?.0))
    }

    fn stats(&self) -> Result<StoreStats, BackendError> {
        let counts = self.reader.read(|reader| {
            let mut counts = reader.prepare_cached(&self.tables.sql.count_by_status)?;
            let counts = counts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            counts.collect::<rusqlite::Result<Vec<(String, i64)>>>()
        })?;
        Ok(store_stats(counts))
    }
}
