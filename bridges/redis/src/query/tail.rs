//! A view of the events as they come: a cursor in the stream, and a connection of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{BackendError, Tail};
use eventbroker::query::Order;
use eventbroker::{Event, Pattern, StartPosition};
use redis::Value;

use crate::query::store::{find, with_statuses};
use crate::scripts::entry::{entries, event_of, list, since_epoch, text, unexpected};
use crate::scripts::merge_scan::{merge, places_at};
use crate::transport::link::{Database, Link};

/// The longest wait for the server at a time, which is less than a call may take.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct RedisTail {
    database: Arc<Database>,
    link: Link,
    pattern: Pattern,
    since: Option<SystemTime>,
    /// Of each stream everything up to here was read.
    read: Vec<String>,
}

impl RedisTail {
    pub(crate) fn new(
        database: &Arc<Database>,
        pattern: &Pattern,
        start: &StartPosition,
    ) -> Result<Self, BackendError> {
        let mut link = Link::new(database);
        let mut since = None;
        let streams = &database.streams;
        let all = |from: &str| vec![from.to_owned(); streams.len()];
        let read = match start {
            StartPosition::New => {
                let mut read = all("0-0");
                for (read, stream) in read.iter_mut().zip(streams) {
                    let last: Value = link.call(|it| {
                        redis::cmd("XREVRANGE").arg(stream).arg("+").arg("-").arg("COUNT").arg(1).query(it)
                    })?;
                    entries(last)?.pop().into_iter().for_each(|(name, _)| *read = name);
                }
                read
            }
            StartPosition::After(id) => match find(&mut link, id)? {
                Some((number, entry, _)) => places_at(database, &mut link, Order::OldestFirst, number, &entry)?,
                None => return Err(BackendError::Refused(format!("the event of {start:?} is not held"))),
            },
            StartPosition::From(time) => {
                since = Some(*time);
                all(&format!("{}-0", since_epoch(*time).as_millis().saturating_sub(1)))
            }
            _ => all("0-0"),
        };
        Ok(Self { database: Arc::clone(database), link, pattern: pattern.clone(), since, read })
    }
}

impl Tail for RedisTail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            let (database, read) = (Arc::clone(&self.database), self.read.clone());
            let answer = self.link.wait(|connection| {
                let mut command = redis::cmd("XREAD");
                command.arg("COUNT").arg(max);
                if !left.is_zero() {
                    command.arg("BLOCK").arg(left.as_millis().max(1) as u64);
                }
                command.arg("STREAMS").arg(&database.streams).arg(read).query(connection)
            })?;
            let mut come = vec![VecDeque::new(); database.streams.len()];
            for stream in list(answer)? {
                let [key, read] = <[Value; 2]>::try_from(list(stream)?).map_err(|it| unexpected(&Value::Array(it)))?;
                let key = text(key)?;
                let index = database.streams.iter().position(|it| *it == key).unwrap_or(0);
                come[index] = entries(read)?.into();
            }
            let mut found = Vec::new();
            for (number, (name, fields)) in merge(come, Order::OldestFirst, max) {
                self.read[number - 1].clone_from(&name);
                // As in a listing, what is no event is not shown.
                let event = event_of(&fields).ok().filter(|event| {
                    self.pattern.matches(event.event_type().as_str())
                        && self.since.is_none_or(|since| event.created_at() >= since)
                });
                found.extend(event.map(|event| (number, name, event)));
            }
            if !found.is_empty() || Instant::now() >= deadline {
                return with_statuses(&mut self.link, found);
            }
        }
    }
}
