//! Events as they come. Positions are given when an event is stored, and seen when its transaction is committed, which may be later
//! than that of a higher position. So a tail goes by the order of transactions, and only up to the oldest one that is still open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Tail};
use eventbroker::{Event, Pattern, StartPosition};

use crate::bell::{Bell, Heard};
use crate::postgres::statements::rows;
use crate::postgres::statements::select::Query;
use crate::postgres::transport::connection::Database;
use crate::postgres::transport::link::{Link, Sync};

/// Time between two looks after something was heard of: it may be behind a transaction that is about to end.
const SHORTEST_POLL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct PostgresTail {
    database: Arc<Database>,
    link: Link,
    bell: Arc<Bell>,
    pattern: Pattern,
    start: StartPosition,
    /// Everything up to here was read: a transaction, and a position in it.
    read: (i64, i64),
    poll: Duration,
}

impl PostgresTail {
    pub(crate) fn new(
        database: &Arc<Database>,
        pattern: &Pattern,
        start: &StartPosition,
    ) -> Result<Self, BackendError> {
        let unavailable = |error: std::io::Error| BackendError::Unavailable(error.to_string());
        let link = Link::start("tail", &database.address, Sync::Later).map_err(unavailable)?;
        database.listen();
        let (sql, wanted) = (Arc::clone(&database.sql), start.clone());
        let read = link.call(move |session| {
            let (query, id) = match &wanted {
                StartPosition::New => {
                    ("SELECT 0::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1", None)
                }
                StartPosition::After(id) => (sql.position.as_str(), Some(id.to_string())),
                _ => return Ok(Some((0, 0))),
            };
            let rows = match &id {
                Some(id) => session.query(query, &[id])?,
                // Everything that is committed by now, or begins to be.
                None => session.query(query, &[])?,
            };
            let place = rows.first().map(|row| Ok((row.try_get(1)?, row.try_get(0)?)));
            let place: Option<(i64, i64)> = place.transpose()?;
            Ok(place.map(|(xid, position)| (xid, if id.is_some() { position } else { i64::MAX })))
        })?;
        let read = read.ok_or_else(|| BackendError::Refused(format!("the event of {start:?} is not held")))?;
        let (database, bell) = (Arc::clone(database), database.bells.add());
        Ok(Self { database, link, bell, pattern: pattern.clone(), start: start.clone(), read, poll: SHORTEST_POLL })
    }

    fn read(&mut self, max: usize) -> Result<Vec<Event>, BackendError> {
        let select = self.database.sql.select.replacen(" FROM ", ", e.xid::text::bigint, e.position FROM ", 1);
        let (xid, position) = self.read;
        let mut query = Query::new(
            format!(
                "{select} AND e.xid < pg_snapshot_xmin(pg_current_snapshot()) AND (e.xid, e.position) > ($1::text::xid8, $2)"
            ),
            vec![Box::new(xid.to_string()), Box::new(position)],
        );
        if let StartPosition::From(time) = &self.start {
            query.and_created(">=", Some(*time));
        }
        query.and_matches(&self.pattern);
        query.text.push_str(" ORDER BY e.xid, e.position");
        query.limit(max);
        let (rows, place) = self.link.call(move |session| {
            let rows = session.query(&query.text, &query.values())?;
            let last = rows
                .last()
                .map(|row| Ok((row.try_get(rows::PROGRESS_COLUMNS)?, row.try_get(rows::PROGRESS_COLUMNS + 1)?)));
            let last: Option<(i64, i64)> = last.transpose()?;
            Ok((rows, last))
        })?;
        self.read = place.unwrap_or(self.read);
        // As in a listing, what is no event is not shown.
        Ok(rows.iter().filter_map(|row| rows::event_with_progress(row).ok()).collect())
    }
}

impl Tail for PostgresTail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            let events = self.read(max)?;
            if !events.is_empty() {
                self.poll = SHORTEST_POLL;
                return Ok(events);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Vec::new());
            }
            let heard = self.bell.wait((now + self.poll).min(deadline));
            self.poll =
                if heard == Heard::Nothing { (self.poll * 2).min(self.database.poll_interval) } else { SHORTEST_POLL };
        }
    }
}
