//! The place of an event in the stream: by its recorded place, or by the time in its id.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventbroker::provider::BackendError;
use eventbroker::{Event, EventId};
use parking_lot::Mutex;

use crate::jetstream::entry::{event_of, id_of, time_of};
use crate::jetstream::kv::AT;
use crate::jetstream::{Get, KeyValue, Layout, Result, Scan, ScanRequest, Start, message};
use crate::publish::MAX_DELAY;
use crate::subscriptions::Ring;
use crate::transport::{Runtime, Session};

/// The largest number of messages that a page of a listing reads. Its cursor goes on behind them.
pub(super) const PAGE_SCAN: usize = 10_000;
/// Messages of one step.
pub(super) const STEP: usize = 500;
/// How far the time in an id and the time of storing mostly lie apart.
const USUAL_DELAY: Duration = Duration::from_millis(50);
/// The largest number of messages that are read to find one.
const SEARCH: usize = 200_000;

/// Finds events, and remembers the places of those that were found lately.
pub(crate) struct Locator {
    pub(super) runtime: Arc<Runtime>,
    pub(crate) layout: Arc<Layout>,
    pub(super) kv: KeyValue,
    places: Mutex<Ring<(EventId, u64)>>,
}

impl Locator {
    pub(crate) fn new(runtime: &Arc<Runtime>, layout: &Arc<Layout>, kv: &KeyValue) -> Self {
        let (runtime, layout, kv) = (Arc::clone(runtime), Arc::clone(layout), kv.clone());
        Self { runtime, layout, kv, places: Mutex::default() }
    }

    pub(super) fn remember(&self, id: &EventId, sequence: u64) {
        self.places.lock().add((id.clone(), sequence));
    }

    /// The sequence of an event's message, and the event without its status.
    pub(crate) async fn find(&self, session: &Session, id: &EventId) -> Result<Option<(u64, Event)>> {
        let (_, recorded): (u64, Option<u64>) = self.kv.read(session, &self.kv.event_key(AT, id)).await?;
        let remembered =
            self.places.lock().newest_first().find(|(known, _)| known == id).map(|(_, sequence)| *sequence);
        for place in [remembered, recorded].into_iter().flatten() {
            if let Some(event) = self.event_at(session, place).await?.filter(|event| event.id() == id) {
                return Ok(Some((place, event)));
            }
        }
        let Some(at) = time_of(id) else { return Ok(None) };
        let text = id.to_string();
        let usual = at.checked_sub(USUAL_DELAY).unwrap_or(at);
        let earliest = at.checked_sub(MAX_DELAY).unwrap_or(SystemTime::UNIX_EPOCH);
        for (from, to) in [(usual, at + MAX_DELAY), (earliest, usual)] {
            let Some(place) = self.search(session, &text, from, to).await? else { continue };
            if let Some(event) = self.event_at(session, place).await? {
                self.remember(id, place);
                return Ok(Some((place, event)));
            }
        }
        Ok(None)
    }

    /// The sequence of an event's message, or an error for the caller of an operation.
    pub(crate) async fn place_of(&self, session: &Session, id: &EventId) -> Result<u64> {
        let found = self.find(session, id).await?;
        found.map(|(place, _)| place).ok_or_else(|| BackendError::Refused(format!("the event {id} is not held")))
    }

    async fn event_at(&self, session: &Session, place: u64) -> Result<Option<Event>> {
        let found = message::get(session, &self.layout.stream, Get::Sequence(place)).await?;
        Ok(found.and_then(|message| event_of(&self.layout, &message)))
    }

    /// Searches the headers of the messages that were stored in a span of time.
    async fn search(&self, session: &Session, id: &str, from: SystemTime, to: SystemTime) -> Result<Option<u64>> {
        let request = ScanRequest::new(&self.layout.stream, &[], Start::Time(from)).headers_only();
        let mut scan = Scan::open(session, request).await?;
        let (mut seen, mut found) = (0, None);
        while found.is_none() && seen < SEARCH {
            let step = scan.next(session, STEP).await?;
            seen += step.len();
            found = step.iter().find(|message| id_of(&message.headers) == Some(id)).map(|message| message.sequence);
            if step.last().is_none_or(|last| last.stored_at > to) {
                break;
            }
        }
        scan.close(session).await;
        Ok(found)
    }
}

/// The first message that was stored at a time or later, or the sequence behind the last one.
pub(crate) async fn first_since(session: &Session, layout: &Layout, time: SystemTime) -> Result<u64> {
    let request = ScanRequest::new(&layout.stream, &[], Start::Time(time)).headers_only();
    let scan = Scan::open(session, request).await?;
    let first = scan.first();
    scan.close(session).await;
    Ok(first)
}
