//! A stream of events as they arrive: a cursor in each stream, and a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{BackendError, Tail};
use eventbroker::query::Order;
use eventbroker::{Event, Pattern, StartPosition};

use super::status::with_statuses;
use crate::scripts::{Client, Entry, entries_at, event_of, locate, merge, since_epoch};

/// The most time for one wait at the server, which is less than a call may take.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

pub(super) struct RedisTail {
    client: Client,
    pattern: Pattern,
    since: Option<SystemTime>,
    /// The last entry of each stream that was read.
    read: Vec<String>,
}

impl RedisTail {
    pub(super) fn new(mut client: Client, pattern: &Pattern, start: &StartPosition) -> Result<Self, BackendError> {
        let (layout, mut since) = (Arc::clone(&client.layout), None);
        let all = |from: &str| vec![from.to_owned(); layout.streams.len()];
        let read = match start {
            StartPosition::New => {
                let mut read = all("0-0");
                for (read, stream) in read.iter_mut().zip(&layout.streams) {
                    let mut newest = redis::cmd("XREVRANGE");
                    newest.arg(stream).arg("+").arg("-").arg("COUNT").arg(1);
                    let newest: Vec<Entry> = client.query(&newest)?;
                    newest.into_iter().for_each(|(entry, _)| *read = entry);
                }
                read
            }
            StartPosition::After(id) => match locate(&mut client, id)? {
                Some((number, entry, _)) => entries_at(&mut client, Order::OldestFirst, number, &entry)?,
                None => return Err(BackendError::Refused(format!("the event of {start:?} is not held"))),
            },
            StartPosition::From(time) => {
                since = Some(*time);
                all(&format!("{}-0", since_epoch(*time).as_millis().saturating_sub(1)))
            }
            _ => all("0-0"),
        };
        Ok(Self { client, pattern: pattern.clone(), since, read })
    }
}

impl Tail for RedisTail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError> {
        let deadline = Instant::now() + wait;
        let layout = Arc::clone(&self.client.layout);
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(max);
            if !left.is_zero() {
                read.arg("BLOCK").arg(left.as_millis().max(1) as u64);
            }
            read.arg("STREAMS").arg(&layout.streams).arg(&self.read);
            let reply: Option<Vec<(String, Vec<Entry>)>> = self.client.wait(&read)?;
            let mut arrived = vec![Vec::new(); layout.streams.len()];
            for (key, entries) in reply.unwrap_or_default() {
                let index = layout.streams.iter().position(|it| *it == key).unwrap_or(0);
                arrived[index] = entries;
            }
            let mut found = Vec::new();
            for (number, (entry, fields)) in merge(arrived, Order::OldestFirst, max) {
                self.read[number - 1].clone_from(&entry);
                // Like a listing, it leaves out entries that are no events.
                let event = event_of(&fields).ok().filter(|event| {
                    self.pattern.matches(event.event_type().as_str())
                        && self.since.is_none_or(|since| event.created_at() >= since)
                });
                found.extend(event.map(|event| (number, entry, event)));
            }
            if !found.is_empty() || Instant::now() >= deadline {
                return with_statuses(&mut self.client, found);
            }
        }
    }
}
