//! Looking events up, listing them, and the statuses that come from elsewhere than from leases.

use std::sync::Arc;

use eventbroker::provider::{BackendError, EventStore, SendOutcome, StatusChange};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId, Status};

use crate::postgres::publish::mirror;
use crate::postgres::statements::rows;
use crate::postgres::statements::select::Query;
use crate::postgres::transport::connection::{Database, unreadable};

#[derive(Debug)]
pub(crate) struct PostgresStore(Arc<Database>);

impl PostgresStore {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self(Arc::clone(database))
    }
}

/// One statement answers each filter: it walks an index in the order of ids.
fn query(select: &str, filter: &Filter) -> Query {
    let mut query = Query::new(select.to_owned(), Vec::new());
    query.and_if("e.source =", filter.source.map(|source| source.as_str()));
    query.and_if("e.status =", filter.status.map(|status| status.as_str()));
    if filter.status.is_some_and(|status| status != Status::Completed) {
        // So that the partial index serves, whatever value is bound.
        query.text.push_str(" AND e.status <> 'completed'");
    }
    query.and_if("e.user_id =", filter.user_id);
    query.and_if("e.schema =", filter.schema.clone());
    query.and_if("e.entity =", filter.entity.clone());
    query.and_if("e.operation =", filter.operation.clone());
    query.and_if("e.instance_id =", filter.instance_id.clone());
    query.and_created(">=", filter.created_from);
    query.and_created("<=", filter.created_to);
    let (beyond, order) = match filter.order {
        Order::OldestFirst => ("e.id >", "ASC"),
        Order::NewestFirst => ("e.id <", "DESC"),
    };
    query.and_if(beyond, filter.after.as_ref().map(EventId::to_string));
    query.text.push_str(&format!(" ORDER BY e.id {order}"));
    query.limit(filter.effective_limit());
    if filter.created_from.is_some() || filter.created_to.is_some() {
        // The ids are found in an index that holds the times too, however many do not fit: only those of the page are looked at.
        let (columns, rest) = query.text.split_once(" FROM ").unwrap_or((&query.text, ""));
        let table = rest.split(" e ").next().unwrap_or_default();
        query.text = format!("{columns} FROM {table} e WHERE e.id IN (SELECT e.id FROM {rest}) ORDER BY e.id {order}");
    }
    query
}

impl EventStore for PostgresStore {
    fn put(&self, event: &Event) -> Result<(), BackendError> {
        let outcomes = mirror::send(&self.0, &self.0.lookups, std::slice::from_ref(event))?;
        self.0.stored();
        match outcomes.into_iter().next() {
            Some(SendOutcome::Conflict) => {
                Err(BackendError::Refused(format!("event {} is known with other content", event.id())))
            }
            _ => Ok(()),
        }
    }

    fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError> {
        let (sql, ids) = (Arc::clone(&self.0.sql), vec![id.to_string()]);
        let rows = self.0.lookups.call(move |session| session.query(&sql.by_id, &[&ids]))?;
        rows.first().map(rows::event_with_progress).transpose().map_err(|error| unreadable(&error))
    }

    fn list(&self, filter: &Filter) -> Result<Page, BackendError> {
        let query = query(&self.0.sql.select, filter);
        let found = self.0.lookups.call(move |session| session.query(&query.text, &query.values()))?;
        let last = found.last().filter(|_| found.len() == filter.effective_limit());
        let next = last.map(|row| rows::id(row, 0)).transpose().map_err(|error| unreadable(&error))?;
        // What somebody else has inserted and is no event is not shown, and hides no other.
        let events = found.iter().filter_map(|row| rows::event_with_progress(row).ok()).collect();
        Ok(Page::new(events, next))
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError> {
        let (sql, member) = (Arc::clone(&self.0.sql), self.0.member.clone());
        let ids: Vec<String> = changes.iter().map(|change| change.id.to_string()).collect();
        let statuses: Vec<&'static str> = changes.iter().map(|change| change.status.as_str()).collect();
        let errors: Vec<Option<String>> = changes.iter().map(|it| it.error.as_deref().map(rows::storable)).collect();
        let retries: Vec<i32> =
            changes.iter().map(|change| change.retry_count.try_into().unwrap_or(i32::MAX)).collect();
        self.0
            .lookups
            .call(move |session| session.query(&sql.tell, &[&member, &ids, &statuses, &errors, &retries]).map(drop))
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        let (sql, id) = (Arc::clone(&self.0.sql), id.to_string());
        let rows = self.0.lookups.call(move |session| session.query(&sql.delete, &[&id]))?;
        Ok(rows.first().is_some_and(|row| row.get::<_, i64>(0) > 0))
    }

    fn stats(&self) -> Result<StoreStats, BackendError> {
        let sql = Arc::clone(&self.0.sql);
        let rows = self.0.lookups.call(move |session| session.query(&sql.counts, &[]))?;
        let mut stats = StoreStats::default();
        for row in rows {
            let (status, count): (String, i64) = (row.get(0), row.get(1));
            let count = count as u64;
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
