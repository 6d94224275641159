//! Streams: a blocking iterator over events, for looking on. No delivery: no status, no retry, no acknowledgement.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use crate::bridge::START_POSITIONS;
use crate::config::StartPosition;
use crate::engine::{Engine, Phase};
use crate::event::{Event, Pattern};
use crate::outcome::{BackendError, StreamError, SubscribeError};
use crate::provider::{MEMORY, Tail};

/// How soon a stream of a back end's events notices that the broker has stopped.
const STOP_POLL: Duration = Duration::from_millis(250);
/// How long a blocking read waits at a time.
const FOREVER: Duration = Duration::from_secs(3600);

/// What a stream yields.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StreamItem {
    /// An event that was accepted.
    Event(Event),
    /// So many events were missed here, because the stream was full.
    Gap(u64),
}

/// A stream of the events that match a pattern. Made by [`Broker::stream`](crate::Broker::stream). As an iterator it blocks, and ends
/// when the broker has stopped.
///
/// Without a back end it holds the latest [`CAPACITY`](Self::CAPACITY) events. When it is full the oldest is dropped and counted,
/// and the next read reports the gap; a publisher is never held up. With a back end that can show events as they come, it reads them
/// from there on the thread that reads the stream, over a connection of its own: those of every instance, in the order in
/// which they were stored, without gaps as long as they are held there. While the back end is away it waits.
pub struct EventStream {
    source: EventsFrom,
    engine: Weak<Engine>,
}

enum EventsFrom {
    /// Those that are accepted here.
    Here { id: u64, pattern: Pattern, events: Receiver<Event>, missed: Arc<AtomicU64> },
    /// Those that the back end holds.
    BackEnd(Mutex<Tailing>),
}

/// A place in the events of a back end.
struct Tailing {
    tail: Box<dyn Tail>,
    /// Those that were fetched and not read.
    fetched: VecDeque<Event>,
}

impl Engine {
    /// Opens a stream.
    pub(crate) fn stream_of(
        self: &Arc<Self>,
        pattern: Pattern,
        start: &StartPosition,
    ) -> Result<EventStream, SubscribeError> {
        let engine = Arc::downgrade(self);
        let (provider, tail) = match &self.bridge {
            Some(bridge) => (&*bridge.name, bridge.operator("streams", bridge.capabilities.tail).ok()),
            None => (MEMORY, None),
        };
        if let Some(operator) = tail {
            let refused = |error: BackendError| SubscribeError::Refused {
                provider: provider.to_owned(),
                reason: error.to_string(),
            };
            let tailing = Tailing { tail: operator.tail(&pattern, start).map_err(refused)?, fetched: VecDeque::new() };
            return Ok(EventStream { source: EventsFrom::BackEnd(Mutex::new(tailing)), engine });
        }
        if *start != StartPosition::New {
            return Err(SubscribeError::Unsupported { provider: provider.to_owned(), feature: START_POSITIONS });
        }
        let id = self.next_id();
        let (events, missed) = if self.lifecycle.phase() == Phase::Stopped {
            let (_, events) = flume::bounded(0);
            (events, Arc::default())
        } else {
            self.streams.open(&pattern, id, EventStream::CAPACITY)
        };
        Ok(EventStream { source: EventsFrom::Here { id, pattern, events, missed }, engine })
    }
}

impl EventStream {
    /// How many unread events a stream holds.
    pub const CAPACITY: usize = 1_024;

    /// The next event or gap. Blocks until there is one.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the broker has stopped and everything was read.
    pub fn recv(&self) -> Result<StreamItem, StreamError> {
        loop {
            match self.read(FOREVER) {
                Err(StreamError::Timeout) => {}
                read => return read,
            }
        }
    }

    /// The next event or gap. Blocks until there is one, at most `timeout`.
    ///
    /// # Errors
    /// [`StreamError::Timeout`] when none came in time, [`StreamError::Closed`] as for [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<StreamItem, StreamError> {
        self.read(timeout)
    }

    /// The next event or gap, if there is one. Never waits for one.
    ///
    /// # Errors
    /// [`StreamError::Timeout`] when there is none, [`StreamError::Closed`] as for [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<StreamItem, StreamError> {
        self.read(Duration::ZERO)
    }

    fn read(&self, timeout: Duration) -> Result<StreamItem, StreamError> {
        match &self.source {
            EventsFrom::Here { events, missed, .. } => {
                if missed.load(Ordering::Relaxed) > 0 {
                    let missed = missed.swap(0, Ordering::AcqRel);
                    if missed > 0 {
                        return Ok(StreamItem::Gap(missed));
                    }
                }
                events.recv_timeout(timeout).map(StreamItem::Event).map_err(|error| match error {
                    RecvTimeoutError::Timeout => StreamError::Timeout,
                    RecvTimeoutError::Disconnected => StreamError::Closed,
                })
            }
            EventsFrom::BackEnd(tailing) => {
                let mut tailing = tailing.lock();
                tailing.read(&self.engine, Instant::now().checked_add(timeout)).map(StreamItem::Event)
            }
        }
    }
}

impl Tailing {
    fn read(&mut self, engine: &Weak<Engine>, deadline: Option<Instant>) -> Result<Event, StreamError> {
        loop {
            if let Some(event) = self.fetched.pop_front() {
                return Ok(event);
            }
            let engine = engine.upgrade().filter(|engine| engine.lifecycle.phase() != Phase::Stopped);
            let left = deadline.map_or(STOP_POLL, |deadline| deadline.saturating_duration_since(Instant::now()));
            // What was stored before the broker stopped is still shown.
            let wait = if engine.is_some() { left.min(STOP_POLL) } else { Duration::ZERO };
            // The engine must not live on because somebody waits for its events.
            let weak = engine.as_ref().map(Arc::downgrade);
            drop(engine);
            match self.tail.next(EventStream::CAPACITY, wait) {
                Ok(events) => self.fetched.extend(events),
                Err(error) => {
                    if let Some(bridge) =
                        weak.as_ref().and_then(Weak::upgrade).as_ref().and_then(|it| it.bridge.as_ref())
                    {
                        bridge.record_error(&error);
                    }
                    std::thread::sleep(wait);
                }
            }
            if self.fetched.is_empty() {
                if weak.is_none() {
                    return Err(StreamError::Closed);
                }
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Err(StreamError::Timeout);
                }
            }
        }
    }
}

impl Iterator for EventStream {
    type Item = StreamItem;

    fn next(&mut self) -> Option<StreamItem> {
        self.recv().ok()
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if let EventsFrom::Here { id, pattern, .. } = &self.source
            && let Some(engine) = self.engine.upgrade()
        {
            engine.streams.close(pattern, *id);
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}
