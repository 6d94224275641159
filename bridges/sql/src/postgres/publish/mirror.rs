//! The way out: a batch of events is one statement, and so one transaction, which is on the disk when it is answered.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use eventbroker::Event;
use eventbroker::provider::{BackendError, Mirror, SendOutcome};
use postgres::Error;
use postgres::types::ToSql;

use crate::postgres::statements::Statements;
use crate::postgres::statements::rows::{self, Batch};
use crate::postgres::transport::connection::Database;
use crate::postgres::transport::link::{Link, Session};

#[derive(Debug)]
pub(crate) struct PostgresMirror(Arc<Database>);

impl PostgresMirror {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self(Arc::clone(database))
    }
}

impl Mirror for PostgresMirror {
    fn send(&mut self, batch: &[Event], _meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        let outcomes = send(&self.0, &self.0.out, batch)?;
        self.0.stored();
        Ok(outcomes)
    }
}

/// Stores events through a connection.
pub(crate) fn send(database: &Database, link: &Link, batch: &[Event]) -> Result<Vec<SendOutcome>, BackendError> {
    let (events, sql, member) = (batch.to_vec(), Arc::clone(&database.sql), database.member.clone());
    let refusal = database.backlog.refusal();
    let outcomes = link.call(move |session| store(session, &sql, &events, &member, refusal.as_ref()))?;
    outcomes.ok_or_else(|| {
        BackendError::Unavailable("PostgreSQL: an event was removed while it was stored again".to_owned())
    })
}

/// Nothing if it has to be done again.
fn store(
    session: &mut Session,
    sql: &Statements,
    events: &[Event],
    member: &str,
    refusal: Option<&SendOutcome>,
) -> Result<Option<Vec<SendOutcome>>, Error> {
    let mut batch = Batch::default();
    events.iter().for_each(|event| batch.push(event));
    let stored = match refusal {
        None => session.query(&sql.insert, &values(&batch, &Some(member)))?,
        // What was stored before is no new event, and has to be found all the same.
        Some(_) => Vec::new(),
    };
    let mut stored = stored.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<String>, Error>>()?;
    let mut there = HashMap::new();
    if stored.len() < batch.ids.len() {
        for row in session.query(&sql.by_id, &[&batch.ids])? {
            // What can't be read is not what was sent.
            there.insert(row.try_get::<_, String>(0)?, rows::event(&row, 0).ok());
        }
    }
    let outcome = |event: &Event| {
        let id = event.id().to_string();
        Some(match (stored.remove(&id), there.get(&id)) {
            (true, _) => SendOutcome::Held,
            (false, Some(Some(known))) if known.same_content(event) => SendOutcome::Known,
            (false, Some(_)) => SendOutcome::Conflict,
            (false, None) => return refusal.cloned(),
        })
    };
    Ok(events.iter().map(outcome).collect())
}

/// The values that the statement of an insert takes.
pub(crate) fn values<'a>(batch: &'a Batch<'_>, origin: &'a Option<&str>) -> [&'a (dyn ToSql + Sync); 15] {
    [
        &batch.ids,
        &batch.sources,
        &batch.types,
        &batch.payloads,
        &batch.user_ids,
        &batch.session_ids,
        &batch.instance_ids,
        &batch.schemas,
        &batch.entities,
        &batch.operations,
        &batch.created,
        &batch.nanos,
        &batch.metadata,
        &batch.keys,
        origin,
    ]
}
