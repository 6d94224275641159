//! Stores batches of events. A batch is one statement and so one transaction, which is on the disk when the call returns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use eventbroker::Event;
use eventbroker::provider::{self, BackendError, SendOutcome};
use postgres::Error;

use super::last_confirmed::LastConfirmed;
use crate::backlog::Backlog;
use crate::columns::event;
use crate::member::Member;
use crate::postgres::statements::{Statements, Tables, insert_values};
use crate::postgres::transport::{Notifier, Session, references};

/// Stores events.
pub(crate) struct Mirror {
    pub(crate) tables: Tables,
    pub(crate) member: Arc<Member>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) last_confirmed: Arc<LastConfirmed>,
}

impl Mirror {
    /// Stores a batch and notifies the ingests.
    pub(crate) fn store(&self, batch: &[Event]) -> Result<Vec<SendOutcome>, BackendError> {
        let (events, id, refusal) = (batch.to_vec(), self.member.id.clone(), self.backlog.refusal());
        let (last, retention) = (self.last_confirmed.clone(), self.member.settings.retention);
        let outcomes = self.tables.call(move |session, sql| {
            last.check(session, sql, retention)?;
            insert(session, sql, &events, &id, refusal.as_ref())
        })?;
        let outcomes = outcomes.ok_or_else(|| {
            BackendError::Unavailable("PostgreSQL: an event was removed while it was stored again".to_owned())
        })?;
        if let Some(last) = outcomes.iter().rposition(|outcome| *outcome == SendOutcome::Held) {
            self.last_confirmed.note(batch[last].id());
        }
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
    let batch: Vec<&Event> = events.iter().collect();
    let stored = match refusal {
        None => session.query(&sql.insert, &references(&insert_values(&batch, Some(member))))?,
        Some(_) => Vec::new(),
    };
    let mut stored = stored.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<String>, Error>>()?;
    let mut known = HashMap::new();
    if stored.len() < events.len() {
        let ids: Vec<String> = events.iter().map(|event| event.id().to_string()).collect();
        // An event that was stored before is not refused while the backlog is full.
        for row in session.query(&sql.by_id, &[&ids])? {
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
