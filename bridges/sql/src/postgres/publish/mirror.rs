//! Stores batches of events. A batch is one statement and so one transaction, which is on the disk when the call returns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use eventbroker::Event;
use eventbroker::provider::{self, BackendError, SendOutcome};
use postgres::Error;

use crate::backlog::Backlog;
use crate::postgres::statements::{Batch, Statements, Tables, event};
use crate::postgres::transport::{Notifier, Session};

/// Stores events.
#[derive(Debug)]
pub(crate) struct Mirror {
    tables: Tables,
    member: Arc<str>,
    backlog: Arc<Backlog>,
    notifier: Arc<Notifier>,
}

impl Mirror {
    pub(crate) fn new(tables: &Tables, member: &Arc<str>, backlog: &Arc<Backlog>, notifier: &Arc<Notifier>) -> Self {
        let (member, backlog, notifier) = (Arc::clone(member), Arc::clone(backlog), Arc::clone(notifier));
        Self { tables: tables.clone(), member, backlog, notifier }
    }

    /// Stores a batch and notifies the ingests.
    pub(crate) fn store(&self, batch: &[Event]) -> Result<Vec<SendOutcome>, BackendError> {
        let (events, member, refusal) = (batch.to_vec(), Arc::clone(&self.member), self.backlog.refusal());
        let outcomes =
            self.tables.call(move |session, sql| insert(session, sql, &events, &member, refusal.as_ref()))?;
        let outcomes = outcomes.ok_or_else(|| {
            BackendError::Unavailable("PostgreSQL: an event was removed while it was stored again".to_owned())
        })?;
        self.notifier.stored();
        Ok(outcomes)
    }
}

/// Inserts events. `None` if the call has to be repeated.
fn insert(
    session: &mut Session,
    sql: &Statements,
    events: &[Event],
    member: &str,
    refusal: Option<&SendOutcome>,
) -> Result<Option<Vec<SendOutcome>>, Error> {
    let batch: Batch<'_> = events.iter().collect();
    let stored = match refusal {
        None => session.query(&sql.insert, &batch.values(&Some(member)))?,
        Some(_) => Vec::new(),
    };
    let mut stored = stored.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<String>, Error>>()?;
    let mut known = HashMap::new();
    if stored.len() < batch.ids.len() {
        // An event that was stored before is not refused while the backlog is full.
        for row in session.query(&sql.by_id, &[&batch.ids])? {
            // A row that is not an event differs from the event.
            known.insert(row.try_get::<_, String>(0)?, event(&row, 0).ok());
        }
    }
    let outcome = |event: &Event| {
        let id = event.id().to_string();
        Some(match (stored.remove(&id), known.get(&id)) {
            (true, _) => SendOutcome::Held,
            (false, Some(Some(known))) if known.same_content(event) => SendOutcome::Known,
            (false, Some(_)) => SendOutcome::Conflict,
            (false, None) => return refusal.cloned(),
        })
    };
    Ok(events.iter().map(outcome).collect())
}

impl provider::Mirror for Mirror {
    fn send(&mut self, batch: &[Event], _meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        self.store(batch)
    }
}
