//! A view of the events as they come: a cursor in the stream, and a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{BackendError, Tail};
use eventbroker::{Event, Pattern, StartPosition};
use redis::Value;

use crate::connection::{Database, Link};
use crate::entry::{entries, event_of, list, since_epoch};
use crate::store::{find, with_statuses};

/// The longest wait for the server at a time, which is less than a call may take.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct RedisTail {
    database: Arc<Database>,
    link: Link,
    pattern: Pattern,
    since: Option<SystemTime>,
    /// Everything up to here was read.
    read: String,
}

impl RedisTail {
    pub(crate) fn new(
        database: &Arc<Database>,
        pattern: &Pattern,
        start: &StartPosition,
    ) -> Result<Self, BackendError> {
        let mut link = Link::new(database);
        let mut since = None;
        let read = match start {
            StartPosition::New => {
                let last: Value = link.call(|it| {
                    redis::cmd("XREVRANGE").arg(&database.stream).arg("+").arg("-").arg("COUNT").arg(1).query(it)
                })?;
                entries(last)?.pop().map_or("0-0".to_owned(), |(name, _)| name)
            }
            StartPosition::After(id) => match find(&mut link, id)? {
                Some((entry, _)) => entry,
                None => return Err(BackendError::Refused(format!("the event of {start:?} is not held"))),
            },
            StartPosition::From(time) => {
                since = Some(*time);
                format!("{}-0", since_epoch(*time).as_millis().saturating_sub(1))
            }
            _ => "0-0".to_owned(),
        };
        Ok(Self { database: Arc::clone(database), link, pattern: pattern.clone(), since, read })
    }
}

impl Tail for RedisTail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            let (stream, read) = (self.database.stream.clone(), self.read.clone());
            let answer = self.link.wait(|connection| {
                let mut command = redis::cmd("XREAD");
                command.arg("COUNT").arg(max);
                if !left.is_zero() {
                    command.arg("BLOCK").arg(left.as_millis().max(1) as u64);
                }
                command.arg("STREAMS").arg(stream).arg(read).query(connection)
            })?;
            let Some(answer) = answer else { return Ok(Vec::new()) };
            let mut found = Vec::new();
            for stream in list(answer)? {
                let Some(read) = list(stream)?.into_iter().nth(1) else { continue };
                for (name, fields) in entries(read)? {
                    self.read.clone_from(&name);
                    // As in a listing, what is no event is not shown.
                    let event = event_of(&fields).ok().filter(|event| {
                        self.pattern.matches(event.event_type().as_str())
                            && self.since.is_none_or(|since| event.created_at() >= since)
                    });
                    found.extend(event.map(|event| (name, event)));
                }
            }
            if !found.is_empty() || Instant::now() >= deadline {
                return with_statuses(&mut self.link, found);
            }
        }
    }
}
