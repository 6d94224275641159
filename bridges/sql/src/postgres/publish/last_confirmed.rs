//! Notices that the server has lost events whose publish was confirmed, as a failover without synchronous replication does.

use std::time::{Duration, Instant};

use eventbroker::EventId;
use parking_lot::Mutex;
use postgres::Error;

use crate::postgres::statements::Statements;
use crate::postgres::transport::Session;

/// The event whose publish was confirmed last. A server that has lost any commit has lost this one, because commits are replicated in
/// their order.
#[derive(Default)]
pub(crate) struct LastConfirmed(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<(EventId, Instant)>,
    /// The event whose loss is reported already. Several sessions may look up the same one.
    reported: Option<EventId>,
}

impl LastConfirmed {
    pub(crate) fn note(&self, id: &EventId) {
        self.0.lock().last = Some((id.clone(), Instant::now()));
    }

    /// Looks the event up once in each new session. If it is absent, before its `retention` can have passed, logs and counts a loss of
    /// at least one event.
    pub(crate) fn check(&self, session: &mut Session, sql: &Statements, retention: Duration) -> Result<(), Error> {
        if !session.is_new {
            return Ok(());
        }
        let last = self.0.lock().last.clone().filter(|(_, confirmed)| confirmed.elapsed() < retention);
        if let Some((id, _)) = last
            && session.query(&sql.position, &[&id.to_string()])?.is_empty()
            && self.begin_report(&id)
        {
            let counted = session.execute(&sql.add_to_counter, &[&"entries_lost", &1_i64]);
            // The next session counts it.
            counted.inspect_err(|_| self.0.lock().reported = None)?;
            tracing::error!(
                %id,
                "an event that was confirmed is not there any more: the server has lost its last commits, as in a failover \
                 without synchronous replication, or another program has removed the event"
            );
        }
        session.is_new = false;
        Ok(())
    }

    /// Notes that the loss of an event is reported. False if it is already.
    fn begin_report(&self, id: &EventId) -> bool {
        self.0.lock().reported.replace(id.clone()).as_ref() != Some(id)
    }
}
