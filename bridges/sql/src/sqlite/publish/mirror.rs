//! Stores batches of events. A batch is one transaction, which is on the disk when the call returns, so the publishers of a batch share
//! one sync.

use std::sync::Arc;

use eventbroker::Event;
use eventbroker::provider::{self, BackendError, SendOutcome};
use rusqlite::{OptionalExtension, Transaction, params_from_iter};

use crate::backlog::Backlog;
use crate::columns::event;
use crate::member::Member;
use crate::notify::Notify;
use crate::sqlite::statements::{Tables, values};
use crate::sqlite::transport::Sync;

/// Stores events.
#[derive(Clone)]
pub(crate) struct Mirror {
    pub(crate) tables: Arc<Tables>,
    pub(crate) member: Arc<Member>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) notify: Arc<Notify>,
}

impl Mirror {
    /// Stores a batch and notifies the ingest.
    pub(crate) fn store(&self, batch: &[Event]) -> Result<Vec<SendOutcome>, BackendError> {
        let outcomes = self.tables.file.write(Sync::Full, |transaction| self.insert(transaction, batch))?;
        self.notify.stored();
        Ok(outcomes)
    }

    fn insert(&self, transaction: &Transaction<'_>, batch: &[Event]) -> rusqlite::Result<Vec<SendOutcome>> {
        let mut insert = transaction.prepare_cached(&self.tables.sql.insert)?;
        let mut by_id = transaction.prepare_cached(&self.tables.sql.by_id)?;
        let refusal = self.backlog.refusal();
        let mut outcomes = Vec::with_capacity(batch.len());
        for new in batch {
            if refusal.is_none() && insert.execute(params_from_iter(values(new, Some(&self.member.id))))? > 0 {
                outcomes.push(SendOutcome::Held);
                continue;
            }
            // An event that was stored before is not refused while the backlog is full.
            let known = by_id.query_row([new.id().to_string()], |row| Ok(event(row, 0)?)).optional()?;
            outcomes.push(match (known, &refusal) {
                (Some(known), _) if known.same_content(new) => SendOutcome::Known,
                (None, Some(refusal)) => refusal.clone(),
                _ => SendOutcome::Conflict,
            });
        }
        Ok(outcomes)
    }
}

impl provider::Mirror for Mirror {
    fn send(&mut self, batch: &[Event], _meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        self.store(batch)
    }
}
