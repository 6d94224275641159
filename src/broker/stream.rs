//! Streams: blocking iterators over events, for observation: no status, no retry, no acknowledgement.

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

/// Time between two checks of a back end's stream whether the broker has stopped.
const STOP_POLL: Duration = Duration::from_millis(250);
/// How long a read without a timeout waits at a time.
const FOREVER: Duration = Duration::from_secs(3600);

/// An item of an [`EventStream`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StreamItem {
    /// An event that was accepted.
    Event(Event),
    /// This many events were dropped here because the stream was full.
    Gap(u64),
}

/// A stream of the events that match a pattern.
///
/// Created by [`Broker::stream`](crate::Broker::stream). The iterator blocks, and ends when the broker has stopped.
///
/// Without a back end, the stream holds up to [`CAPACITY`](Self::CAPACITY) unread events of this instance. A full
/// stream drops its oldest event, and the next read reports the gap; publishers never wait for it. With a back end that
/// offers streams, the reading thread fetches the events of every instance, in the order in which they were stored and
/// without gaps while the back end holds them. While the back end is unavailable, a read waits.
pub struct EventStream {
    source: StreamSource,
    engine: Weak<Engine>,
}

enum StreamSource {
    /// Events that are accepted on this instance.
    Local { id: u64, pattern: Pattern, events: Receiver<Event>, missed: Arc<AtomicU64> },
    /// Events that the back end holds.
    BackEnd(Mutex<BackEndCursor>),
}

/// A position in the events of a back end.
struct BackEndCursor {
    tail: Box<dyn Tail>,
    /// Events that were fetched and not read yet.
    fetched: VecDeque<Event>,
}

impl Engine {
    /// Opens a stream at the back end if that offers streams, else on this instance.
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
            let cursor =
                BackEndCursor { tail: operator.tail(&pattern, start).map_err(refused)?, fetched: VecDeque::new() };
            return Ok(EventStream { source: StreamSource::BackEnd(Mutex::new(cursor)), engine });
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
        Ok(EventStream { source: StreamSource::Local { id, pattern, events, missed }, engine })
    }
}

impl EventStream {
    /// The most unread events that a stream holds.
    pub const CAPACITY: usize = 1_024;

    /// Reads the next event or gap. Blocks, without a time limit, until one comes.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the broker has stopped and every event was read.
    pub fn recv(&self) -> Result<StreamItem, StreamError> {
        loop {
            match self.read(FOREVER) {
                Err(StreamError::Timeout) => {}
                read => return read,
            }
        }
    }

    /// Reads the next event or gap. Blocks until one comes, at most `timeout`.
    ///
    /// With a back end, a round trip may take longer.
    ///
    /// # Errors
    /// [`StreamError::Timeout`] when none came in time, [`StreamError::Closed`] as for [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<StreamItem, StreamError> {
        self.read(timeout)
    }

    /// Reads the next event or gap, if one is ready.
    ///
    /// Does not block without a back end; with one, it may block for a round trip.
    ///
    /// # Errors
    /// [`StreamError::Timeout`] when none is ready, [`StreamError::Closed`] as for [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<StreamItem, StreamError> {
        self.read(Duration::ZERO)
    }

    fn read(&self, timeout: Duration) -> Result<StreamItem, StreamError> {
        match &self.source {
            StreamSource::Local { events, missed, .. } => {
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
            StreamSource::BackEnd(cursor) => {
                let mut cursor = cursor.lock();
                cursor.read(&self.engine, Instant::now().checked_add(timeout)).map(StreamItem::Event)
            }
        }
    }
}

impl BackEndCursor {
    fn read(&mut self, engine: &Weak<Engine>, deadline: Option<Instant>) -> Result<Event, StreamError> {
        loop {
            if let Some(event) = self.fetched.pop_front() {
                return Ok(event);
            }
            let engine = engine.upgrade().filter(|engine| engine.lifecycle.phase() != Phase::Stopped);
            let left = deadline.map_or(STOP_POLL, |deadline| deadline.saturating_duration_since(Instant::now()));
            // After the stop, events that were stored before are still read, without waiting.
            let wait = if engine.is_some() { left.min(STOP_POLL) } else { Duration::ZERO };
            // A waiting stream must not keep the engine alive.
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
        if let StreamSource::Local { id, pattern, .. } = &self.source
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
