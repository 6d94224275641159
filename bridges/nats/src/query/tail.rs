//! The stream of new events: a consumer of its own, which the server forgets.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::Tail;
use eventbroker::{Event, Pattern, StartPosition};

use super::locate::{Locator, first_since};
use super::status::with_statuses;
use crate::jetstream::entry::events_of;
use crate::jetstream::scan::ConsumerScan;
use crate::jetstream::{Result, ScanRequest, Start, stream};
use crate::publish::MAX_DELAY;

/// The longest wait for the server at a time, less than the limit of a call.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Messages of one request.
const STEP: usize = 256;

pub(super) struct NatsTail {
    locator: Arc<Locator>,
    pattern: Pattern,
    since: Option<SystemTime>,
    /// The next message to read.
    next: u64,
    /// The scan, and its session.
    scan: Option<(u64, ConsumerScan)>,
}

impl NatsTail {
    pub(super) fn new(locator: &Arc<Locator>, pattern: &Pattern, start: &StartPosition) -> Result<Self> {
        let since = if let StartPosition::From(time) = start { Some(*time) } else { None };
        let (on_thread, start) = (Arc::clone(locator), start.clone());
        let next = locator.runtime.call(move |session| async move {
            match &start {
                StartPosition::New => Ok(stream::last(&session, &on_thread.layout.stream).await? + 1),
                StartPosition::After(id) => Ok(on_thread.place_of(&session, id).await? + 1),
                StartPosition::From(time) => {
                    let early = time.checked_sub(MAX_DELAY).unwrap_or(*time);
                    first_since(&session, &on_thread.layout, early).await
                }
                _ => Ok(1),
            }
        })?;
        Ok(Self { locator: Arc::clone(locator), pattern: pattern.clone(), since, next, scan: None })
    }
}

impl Tail for NatsTail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            let (locator, pattern, since) = (Arc::clone(&self.locator), self.pattern.clone(), self.since);
            let (scan, from, count) = (self.scan.take(), self.next, max.min(STEP));
            let (scan, last, events) = self.locator.runtime.call(move |session| async move {
                let Locator { layout, kv, .. } = &*locator;
                let mut scan = match scan {
                    Some((generation, scan)) if generation == session.generation => scan,
                    _ => {
                        let subjects = layout.subjects(&pattern, from);
                        let request = ScanRequest::new(&layout.stream, &subjects, Start::At(from));
                        ConsumerScan::open(&session, request).await?
                    }
                };
                let found = scan.wait(&session, count, left.max(Duration::from_millis(1))).await?;
                let last = found.last().map(|message| message.sequence);
                let mut events = events_of(layout, found);
                events.retain(|(_, event)| {
                    let is_young = since.is_none_or(|since| event.created_at() >= since);
                    is_young && pattern.matches(event.event_type().as_str())
                });
                let events = with_statuses(&session, layout, kv, events).await?;
                Ok(((session.generation, scan), last, events))
            })?;
            self.scan = Some(scan);
            self.next = last.map_or(self.next, |last| last + 1);
            if !events.is_empty() || Instant::now() >= deadline {
                return Ok(events);
            }
        }
    }
}
