//! Streams: a blocking iterator over events, for looking on. No delivery: no status, no retry, no acknowledgement.

use std::fmt;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError};

use crate::engine::Engine;
use crate::error::StreamError;
use crate::event::Event;
use crate::pattern::Pattern;

/// What a stream yields.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StreamItem {
    /// An event that was accepted.
    Event(Event),
    /// So many events were missed here, because the stream was full.
    Gap(u64),
}

/// A stream of the events that match a pattern, from its creation on. Made by [`Broker::stream`](crate::Broker::stream).
///
/// It holds the latest [`CAPACITY`](Self::CAPACITY) events. When it is full the oldest is dropped and counted, and the next
/// read reports the gap; a publisher is never held up. As an iterator it blocks, and ends when the broker has stopped.
pub struct EventStream {
    id: u64,
    pattern: Pattern,
    engine: Weak<Engine>,
    events: Receiver<Event>,
    missed: Arc<AtomicU64>,
}

/// The end of a stream that publishers fill.
#[derive(Debug)]
pub(crate) struct StreamSink {
    sender: Sender<Event>,
    oldest: Receiver<Event>,
    missed: Arc<AtomicU64>,
}

impl EventStream {
    /// How many unread events a stream holds.
    pub const CAPACITY: usize = 1_024;

    pub(crate) fn open(id: u64, pattern: Pattern, engine: Weak<Engine>) -> (Self, StreamSink) {
        let (sender, events) = flume::bounded(Self::CAPACITY);
        let missed = Arc::new(AtomicU64::new(0));
        let sink = StreamSink { sender, oldest: events.clone(), missed: Arc::clone(&missed) };
        (Self { id, pattern, engine, events, missed }, sink)
    }

    /// The next event or gap. Blocks until there is one.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the broker has stopped and everything was read.
    pub fn recv(&self) -> Result<StreamItem, StreamError> {
        match self.gap() {
            Some(gap) => Ok(gap),
            None => self.events.recv().map(StreamItem::Event).map_err(|_| StreamError::Closed),
        }
    }

    /// The next event or gap. Blocks until there is one, at most `timeout`.
    ///
    /// # Errors
    /// [`StreamError::Timeout`] when none came in time, [`StreamError::Closed`] as for [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<StreamItem, StreamError> {
        match self.gap() {
            Some(gap) => Ok(gap),
            None => self.events.recv_timeout(timeout).map(StreamItem::Event).map_err(|error| match error {
                RecvTimeoutError::Timeout => StreamError::Timeout,
                RecvTimeoutError::Disconnected => StreamError::Closed,
            }),
        }
    }

    /// The next event or gap, if there is one. Never blocks.
    ///
    /// # Errors
    /// [`StreamError::Timeout`] when there is none, [`StreamError::Closed`] as for [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<StreamItem, StreamError> {
        match self.gap() {
            Some(gap) => Ok(gap),
            None => self.events.try_recv().map(StreamItem::Event).map_err(|error| match error {
                TryRecvError::Empty => StreamError::Timeout,
                TryRecvError::Disconnected => StreamError::Closed,
            }),
        }
    }

    fn gap(&self) -> Option<StreamItem> {
        if self.missed.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(self.missed.swap(0, Ordering::AcqRel)).filter(|&missed| missed > 0).map(StreamItem::Gap)
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
        if let Some(engine) = self.engine.upgrade() {
            engine.streams.remove(&self.pattern, self.id);
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

impl StreamSink {
    /// Adds an event; the oldest makes room. Returns how many were dropped. Never waits.
    pub(crate) fn push(&self, event: &Event) -> u64 {
        let mut dropped = 0;
        let mut event = event.clone();
        while let Err(TrySendError::Full(back)) = self.sender.try_send(event) {
            event = back;
            if self.oldest.try_recv().is_ok() {
                dropped += 1;
            }
        }
        if dropped > 0 {
            self.missed.fetch_add(dropped, Ordering::AcqRel);
        }
        dropped
    }
}
