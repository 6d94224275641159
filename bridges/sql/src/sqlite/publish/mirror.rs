//! The way out: a batch of events is one transaction, which is on the disk when it is answered. So publishers share its sync.

use std::sync::Arc;

use eventbroker::Event;
use eventbroker::provider::{BackendError, Mirror, SendOutcome};
use rusqlite::{OptionalExtension, Transaction};

use crate::sqlite::statements::rows;
use crate::sqlite::transport::connection::{Database, Sync};

#[derive(Debug)]
pub(crate) struct SqliteMirror(Arc<Database>);

impl SqliteMirror {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self(Arc::clone(database))
    }
}

impl Mirror for SqliteMirror {
    fn send(&mut self, batch: &[Event], _meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        let database = &*self.0;
        let outcomes = database.write(Sync::Full, |transaction| store(database, transaction, batch))?;
        database.bell.stored();
        Ok(outcomes)
    }
}

/// Stores events in a transaction.
pub(crate) fn store(
    database: &Database,
    transaction: &Transaction<'_>,
    events: &[Event],
) -> rusqlite::Result<Vec<SendOutcome>> {
    let mut insert = transaction.prepare_cached(&database.sql.insert)?;
    let mut by_id = transaction.prepare_cached(&database.sql.by_id)?;
    let refusal = database.backlog.refusal();
    let mut outcomes = Vec::with_capacity(events.len());
    for event in events {
        if refusal.is_none() && rows::insert(&mut insert, event, Some(&database.member))? {
            outcomes.push(SendOutcome::Held);
            continue;
        }
        // Also while nothing more is stored: what was stored before is no new event.
        let known = by_id.query_row([event.id().to_string()], |row| rows::event(row, 0)).optional()?;
        outcomes.push(match (known, &refusal) {
            (Some(known), _) if known.same_content(event) => SendOutcome::Known,
            (None, Some(refusal)) => refusal.clone(),
            _ => SendOutcome::Conflict,
        });
    }
    Ok(outcomes)
}
