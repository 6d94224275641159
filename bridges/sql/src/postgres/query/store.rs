//! Looks events up, lists and deletes them, and records the statuses of local deliveries.

use std::slice;
use std::sync::Arc;

use eventbroker::provider::{BackendError, EventStore, SendOutcome, StatusChange};
use eventbroker::query::{Filter, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId};

use crate::columns::{event_with_progress, id, store_stats};
use crate::member::Member;
use crate::postgres::publish::Mirror;
use crate::postgres::statements::{Select, Tables, storable, unreadable};

/// The events of one database.
pub(crate) struct Store {
    pub(crate) tables: Tables,
    pub(crate) member: Arc<Member>,
    pub(crate) mirror: Mirror,
}

/// The select of a filter.
fn select(all: &str, filter: &Filter) -> Select {
    let mut select = Select::new(all);
    let order = select.filter(filter);
    if filter.created_from.is_some() || filter.created_to.is_some() {
        // The ids come from an index that has the times too, so only the rows of the page are read, however many do not match.
        let (columns, rest) = select.text.split_once(" FROM ").unwrap_or((&select.text, ""));
        let table = rest.split(" e ").next().unwrap_or_default();
        select.text = format!("{columns} FROM {table} e WHERE e.id IN (SELECT e.id FROM {rest}) ORDER BY {order}");
    }
    select
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
        let ids = vec![id.to_string()];
        let rows = self.tables.call(move |session, sql| session.query(&sql.by_id, &[&ids]))?;
        rows.first().map(event_with_progress).transpose().map_err(unreadable)
    }

    fn list(&self, filter: &Filter) -> Result<Page, BackendError> {
        let select = select(&self.tables.sql.select, filter);
        let found = self.tables.call(move |session, _| select.read(session))?;
        let last = found.last().filter(|_| found.len() == filter.effective_limit());
        let next = last.map(|row| id(row, 0)).transpose().map_err(unreadable)?;
        // A row of another program that is not an event is left out.
        let events = found.iter().filter_map(|row| event_with_progress(row).ok()).collect();
        Ok(Page::new(events, next))
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError> {
        let id = self.member.id.clone();
        let ids: Vec<String> = changes.iter().map(|change| change.id.to_string()).collect();
        let statuses: Vec<&'static str> = changes.iter().map(|change| change.status.as_str()).collect();
        let errors: Vec<Option<String>> = changes.iter().map(|it| it.error.as_deref().map(storable)).collect();
        let retries: Vec<i32> =
            changes.iter().map(|change| change.retry_count.try_into().unwrap_or(i32::MAX)).collect();
        self.tables.call(move |session, sql| {
            session.query(&sql.record_local_status, &[&id, &ids, &statuses, &errors, &retries]).map(drop)
        })
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        let id = id.to_string();
        let rows = self.tables.call(move |session, sql| session.query(&sql.delete_event, &[&id]))?;
        Ok(rows.first().is_some_and(|row| row.get::<_, i64>(0) > 0))
    }

    fn stats(&self) -> Result<StoreStats, BackendError> {
        let rows = self.tables.call(|session, sql| session.query(&sql.count_by_status, &[]))?;
        Ok(store_stats(rows.iter().map(|row| (row.get(0), row.get(1)))))
    }
}
