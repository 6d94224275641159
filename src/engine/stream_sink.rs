//! The sending end of streams, which publishers fill. The reading end is in `broker/stream.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flume::{Receiver, Sender, TrySendError};

use crate::event::{Event, Pattern};
use crate::router::Router;

/// The streams of one broker that publishers of this process fill.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    sinks: Router<Arc<StreamSink>>,
    gaps: AtomicU64,
}

/// The sending end of a stream.
#[derive(Debug)]
struct StreamSink {
    sender: Sender<Event>,
    oldest: Receiver<Event>,
    missed: Arc<AtomicU64>,
}

impl Streams {
    /// Opens a stream of at most `capacity` unread events. Returns its reading end and its count of missed events.
    pub(crate) fn open(&self, pattern: &Pattern, id: u64, capacity: usize) -> (Receiver<Event>, Arc<AtomicU64>) {
        let (sender, events) = flume::bounded(capacity);
        let missed = Arc::new(AtomicU64::new(0));
        let sink = StreamSink { sender, oldest: events.clone(), missed: Arc::clone(&missed) };
        self.sinks.insert(pattern, id, Arc::new(sink));
        (events, missed)
    }

    /// Adds an event to every matching stream. Never blocks.
    pub(super) fn push(&self, event: &Event) {
        if self.sinks.is_empty() {
            return;
        }
        let route = self.sinks.route(event.event_type());
        let dropped: u64 = route.targets().iter().map(|sink| sink.push(event)).sum();
        if dropped > 0 {
            self.gaps.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    pub(crate) fn close(&self, pattern: &Pattern, id: u64) {
        self.sinks.remove(pattern, id);
    }

    /// Closes every stream.
    pub(super) fn clear(&self) {
        self.sinks.clear();
    }

    /// Events that full streams have dropped.
    pub(crate) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }
}

impl StreamSink {
    /// Adds an event. A full stream drops its oldest event. Returns how many were dropped. Never blocks.
    fn push(&self, event: &Event) -> u64 {
        let mut dropped = 0;
        let mut event = event.clone();
        while let Err(TrySendError::Full(returned)) = self.sender.try_send(event) {
            event = returned;
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
