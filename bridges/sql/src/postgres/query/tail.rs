//! Follows the events as they come. An event gets its position when it is stored, and is visible when its transaction is committed,
//! which may be after a higher position. So a tail reads in the order of transactions, up to the oldest one that is still open.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{self, BackendError};
use eventbroker::{Event, Pattern, StartPosition};
use postgres::Row;

use crate::columns::{ReadRow, event_with_progress};
use crate::notify::{Notified, Notify};
use crate::postgres::statements::{Select, Tables};
use crate::postgres::transport::Notifier;

/// The first pause after a notification: the event may be behind a transaction that is about to end.
const SHORTEST_POLL: Duration = Duration::from_millis(5);

/// Reads on from a transaction and a position in it.
pub(crate) struct Tail {
    tables: Tables,
    notifier: Arc<Notifier>,
    notify: Arc<Notify>,
    pattern: Pattern,
    /// The time of the oldest event to return.
    since: Option<SystemTime>,
    /// The last transaction that was read, and the last position in it.
    read_until: (i64, i64),
    /// The current pause between two polls.
    pause: Duration,
}

impl Tail {
    pub(crate) fn new(
        tables: Tables,
        notifier: Arc<Notifier>,
        pattern: &Pattern,
        start: &StartPosition,
    ) -> Result<Self, BackendError> {
        notifier.listen();
        let wanted = start.clone();
        let read_until = tables.call(move |session, sql| {
            Ok(match &wanted {
                // All transactions that have begun by now.
                StartPosition::New => {
                    let rows = session.query(&sql.last_transaction, &[])?;
                    rows.first().map(|row| Ok((row.try_get(0)?, i64::MAX))).transpose()?
                }
                StartPosition::After(id) => {
                    let rows = session.query(&sql.position, &[&id.to_string()])?;
                    rows.first().map(|row| Ok((row.try_get(1)?, row.try_get(0)?))).transpose()?
                }
                _ => Some((0, 0)),
            })
        })?;
        let read_until =
            read_until.ok_or_else(|| BackendError::Refused(format!("the event of {start:?} is not held")))?;
        Ok(Self {
            tables,
            notify: notifier.add_waiter(),
            notifier,
            pattern: pattern.clone(),
            since: if let StartPosition::From(time) = start { Some(*time) } else { None },
            read_until,
            pause: SHORTEST_POLL,
        })
    }

    fn read(&mut self, max: usize) -> Result<Vec<Event>, BackendError> {
        let (transaction, position) = self.read_until;
        let mut select =
            Select::with_condition(&self.tables.sql.tail, vec![Box::new(transaction.to_string()), Box::new(position)]);
        select.and_created(">=", self.since);
        select.and_matches(&self.pattern);
        select.order_and_limit("e.xid, e.position", max);
        let (rows, last) = self.tables.call(move |session, _| {
            let rows = select.read(session)?;
            let last = rows
                .last()
                .map(|row| Ok((row.try_get(Row::PROGRESS_COLUMNS)?, row.try_get(Row::PROGRESS_COLUMNS + 1)?)));
            let last: Option<(i64, i64)> = last.transpose()?;
            Ok((rows, last))
        })?;
        self.read_until = last.unwrap_or(self.read_until);
        // A row of another program that is not an event is left out.
        Ok(rows.iter().filter_map(|row| event_with_progress(row).ok()).collect())
    }
}

impl provider::Tail for Tail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            let events = self.read(max)?;
            if !events.is_empty() {
                self.pause = SHORTEST_POLL;
                return Ok(events);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Vec::new());
            }
            self.pause = match self.notify.wait((now + self.pause).min(deadline)) {
                Notified::TimedOut => (self.pause * 2).min(self.notifier.poll_interval),
                _ => SHORTEST_POLL,
            };
        }
    }
}
