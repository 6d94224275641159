//! The mirror: publishes the events of a batch one behind the other, and awaits their answers together. An event is confirmed here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use eventbroker::provider::{Mirror, SendOutcome};
use eventbroker::{Event, EventId};
use parking_lot::Mutex;

use crate::jetstream::entry::{self, apart, event_of, time_of};
use crate::jetstream::kv::{self, AT};
use crate::jetstream::message::{self, Stored};
use crate::jetstream::{Get, KeyValue, Layout, Result, ServerClock, StoredMessage, stream};
use crate::settings::{Hook, Nats};
use crate::transport::{PublishConn, Runtime, Session};

/// How far the time in an id and the time of storing may lie apart: clocks differ, and a buffer may delay events. An event whose times lie further
/// apart gets a record of its place.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(5);

/// Publishes events.
#[derive(Debug)]
pub(crate) struct Publisher {
    runtime: Arc<Runtime>,
    conn: Mutex<PublishConn>,
    settings: Arc<Nats>,
    layout: Arc<Layout>,
    kv: KeyValue,
    clock: Arc<ServerClock>,
    was_full: AtomicBool,
    /// Called when the stream is full.
    on_full: Hook<()>,
}

impl Publisher {
    pub(crate) fn new(
        runtime: &Arc<Runtime>,
        conn: PublishConn,
        settings: &Arc<Nats>,
        layout: &Arc<Layout>,
        clock: &Arc<ServerClock>,
        on_full: Hook<()>,
    ) -> Self {
        let (runtime, settings, clock) = (Arc::clone(runtime), Arc::clone(settings), Arc::clone(clock));
        let (layout, kv, conn) = (Arc::clone(layout), KeyValue::new(&settings), Mutex::new(conn));
        let was_full = AtomicBool::new(false);
        Self { runtime, conn, settings, layout, kv, clock, was_full, on_full }
    }

    /// Whether the stream was full since this was last asked.
    pub(crate) fn was_full(&self) -> bool {
        self.was_full.swap(false, Ordering::SeqCst)
    }

    /// Publishes events, and waits until each is stored or refused.
    pub(crate) fn send(self: &Arc<Self>, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>> {
        let published = self.conn.lock().publish(
            &self.runtime,
            batch,
            |event, put| entry::write(&self.layout, event, put),
            |answer| match answer {
                Ok(answer) => Stored::read(answer.headers.status(), &answer.payload),
                Err(limit) => Ok(Stored::larger_than(limit)),
            },
            meanwhile,
        );
        let stored = match published {
            Ok(stored) => stored,
            Err(error) => {
                self.restore_stream()?;
                return Err(error);
            }
        };
        let mut duplicates = self.index_and_get_duplicates(batch, &stored)?.into_iter();
        let mut outcomes = Vec::with_capacity(batch.len());
        for (event, stored) in batch.iter().zip(stored) {
            outcomes.push(match stored {
                Stored::New(_) => SendOutcome::Held,
                Stored::Duplicate(_) => {
                    match duplicates.next().flatten().and_then(|message| event_of(&self.layout, &message)) {
                        Some(there) if !there.same_content(event) => SendOutcome::Conflict,
                        // Also if the stored event was removed after it was handled.
                        _ => SendOutcome::Known,
                    }
                }
                Stored::Full => {
                    self.was_full.store(true, Ordering::SeqCst);
                    self.on_full.call(());
                    SendOutcome::Full { max_backlog: self.settings.max_messages }
                }
                Stored::TooLarge(reason) => SendOutcome::Refused(reason),
                Stored::WrongLast => SendOutcome::Refused("another event was expected before it".to_owned()),
            });
        }
        Ok(outcomes)
    }

    /// Creates the stream again if it was removed, for the next try.
    fn restore_stream(self: &Arc<Self>) -> Result<()> {
        let publisher = Arc::clone(self);
        self.runtime.call(move |session| async move {
            let Self { settings, layout, kv, .. } = &*publisher;
            if stream::info(&session, &layout.stream).await?.is_none() {
                stream::restore(&session, settings, layout, kv).await?;
            }
            Ok(())
        })
    }

    /// Records the places of events whose ids do not show them, and reads the stored events of duplicates.
    fn index_and_get_duplicates(
        self: &Arc<Self>,
        batch: &[Event],
        stored: &[Stored],
    ) -> Result<Vec<Option<StoredMessage>>> {
        let now = self.clock.time(self.runtime.generation());
        let is_plain = |(event, stored): (&Event, &Stored)| match stored {
            Stored::New(_) => shows_place(event.id(), now),
            Stored::Duplicate(_) => false,
            _ => true,
        };
        if batch.iter().zip(stored).all(is_plain) {
            return Ok(Vec::new());
        }
        let ids: Vec<EventId> = batch.iter().map(|event| event.id().clone()).collect();
        let (publisher, stored) = (Arc::clone(self), stored.to_vec());
        self.runtime.call(move |session| async move {
            publisher.index(&session, &ids, &stored).await?;
            let get = |it: &Stored| if let Stored::Duplicate(number) = it { Some(Get::Number(*number)) } else { None };
            let duplicates: Vec<Get> = stored.iter().filter_map(get).collect();
            message::get_all(&session, &publisher.layout.stream, &duplicates).await
        })
    }

    async fn index(&self, session: &Session, ids: &[EventId], stored: &[Stored]) -> Result<()> {
        let mut now = self.clock.time(session.generation);
        let new = |it: &Stored| if let Stored::New(number) = it { Some(*number) } else { None };
        if now.is_none()
            && let Some(last) = stored.iter().rev().find_map(new)
            && let Some(message) = message::get(session, &self.layout.stream, Get::Number(last)).await?
        {
            self.clock.set(session, &message);
            now = Some(message.stored_at);
        }
        let mut places = Vec::new();
        for (id, stored) in ids.iter().zip(stored) {
            if let Stored::New(number) | Stored::Duplicate(number) = stored
                && !shows_place(id, now)
            {
                places.push((self.kv.event_key(AT, id), kv::write(number)));
            }
        }
        if places.is_empty() { Ok(()) } else { self.kv.put_all(session, places).await }
    }
}

/// Whether an id shows the place of its event: its time is about the server's time of storing.
fn shows_place(id: &EventId, now: Option<SystemTime>) -> bool {
    time_of(id).is_some_and(|at| now.is_some_and(|now| apart(at, now) < MAX_DELAY / 2))
}

/// The mirror of a provider.
#[derive(Debug)]
pub(crate) struct NatsMirror(pub(crate) Arc<Publisher>);

impl Mirror for NatsMirror {
    fn send(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>> {
        self.0.send(batch, meanwhile)
    }
}
