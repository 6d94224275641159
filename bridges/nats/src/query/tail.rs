//! A view of the events as they come: a consumer of its own, that the server forgets.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{BackendError, Tail};
use eventbroker::{Event, Pattern, StartPosition};

use crate::jetstream::entry::event_of;
use crate::jetstream::message::Entry;
use crate::jetstream::scan::{Begin, Reading};
use crate::jetstream::stream;
use crate::provider::backend::Database;
use crate::query::status::with_statuses;
use crate::query::store;

/// The longest wait for the server at a time, which is less than a call may take.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Messages that are asked for at a time.
const STEP: usize = 256;

#[derive(Debug)]
pub(crate) struct NatsTail {
    database: Arc<Database>,
    pattern: Pattern,
    since: Option<SystemTime>,
    /// The next message to read.
    next: u64,
    /// What reads it, and on which connection that was made.
    range: Option<(u64, Reading)>,
}

impl NatsTail {
    pub(crate) fn new(
        database: &Arc<Database>,
        pattern: &Pattern,
        start: &StartPosition,
    ) -> Result<Self, BackendError> {
        let since = if let StartPosition::From(time) = start { Some(*time) } else { None };
        let (on_thread, start) = (Arc::clone(database), start.clone());
        let next = database.runtime.call(move |session| async move {
            match &start {
                StartPosition::New => Ok(stream::last(&session, on_thread.stream()).await? + 1),
                StartPosition::After(id) => match store::find(&session, &on_thread, id).await? {
                    Some((place, _)) => Ok(place + 1),
                    None => Err(BackendError::Refused(format!("the event of {start:?} is not held"))),
                },
                StartPosition::From(time) => {
                    let early = time.checked_sub(store::MAX_DELAY).unwrap_or(*time);
                    store::first_since(&session, &on_thread, early).await
                }
                _ => Ok(1),
            }
        })?;
        Ok(Self { database: Arc::clone(database), pattern: pattern.clone(), since, next, range: None })
    }
}

impl Tail for NatsTail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            let (database, pattern, since) = (Arc::clone(&self.database), self.pattern.clone(), self.since);
            let (range, from, count) = (self.range.take(), self.next, max.min(STEP));
            let (range, last, events) = self.database.runtime.call(move |session| async move {
                let mut range = match range {
                    Some((generation, range)) if generation == session.generation => range,
                    _ => {
                        let subjects = database.subjects(&pattern, from);
                        Reading::open(&session, database.stream(), &subjects, Begin::Number(from), false).await?
                    }
                };
                let found = range.wait(&session, count, left.max(Duration::from_millis(1))).await?;
                let last = found.last().map(|entry| entry.sequence);
                // As in a listing, what is no event is not shown.
                let event = |entry: Entry| {
                    let event = event_of(database.prefix(), &entry)?;
                    let is_wanted = pattern.matches(event.event_type().as_str())
                        && since.is_none_or(|since| event.created_at() >= since);
                    is_wanted.then_some((entry.sequence, event))
                };
                let events = found.into_iter().filter_map(event).collect();
                let events = with_statuses(&session, &database, events).await?;
                Ok(((session.generation, range), last, events))
            })?;
            self.range = Some(range);
            self.next = last.map_or(self.next, |last| last + 1);
            if !events.is_empty() || Instant::now() >= deadline {
                return Ok(events);
            }
        }
    }
}
