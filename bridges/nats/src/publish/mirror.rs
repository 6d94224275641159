//! The mirror: sends the events of a batch one behind the other, and maps their answers to outcomes. [`PublishAnswer::read`]
//! (`jetstream/message.rs`) decides which answer is a confirmation.
//!
//! A publish is repeated when its answer is lost. The server recognizes the repeat by the id of the event, within the stream's
//! `duplicate_window`; a later repeat is stored a second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use eventbroker::provider::{Mirror, SendOutcome};
use eventbroker::{Event, EventId};
use parking_lot::Mutex;

use crate::jetstream::entry::{self, apart, event_of, time_of};
use crate::jetstream::kv::{self, AT};
use crate::jetstream::message::{self, PublishAnswer};
use crate::jetstream::{Get, KeyValue, Layout, Result, ServerClock, StoredMessage, stream};
use crate::settings::{Hook, Nats};
use crate::transport::{PublishConn, Runtime, Session};

/// How far the time in an id and the time of storing may lie apart: clocks differ, and a buffer may delay events. An event whose times lie further
/// apart gets a record of its place.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(5);

/// Publishes events.
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

    /// Whether the stream was full since the last call.
    pub(crate) fn take_was_full(&self) -> bool {
        self.was_full.swap(false, Ordering::SeqCst)
    }

    /// Publishes events, and waits until each is stored or refused.
    pub(crate) fn send(self: &Arc<Self>, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>> {
        let published = self.conn.lock().publish(
            batch,
            |event, put| entry::write(&self.layout, event, put),
            |answer| match answer {
                Ok(answer) => PublishAnswer::read(answer.headers.status(), &answer.payload),
                Err(limit) => Ok(PublishAnswer::larger_than(limit)),
            },
            meanwhile,
        );
        let answers = match published {
            Ok(answers) => answers,
            Err(error) => {
                if let Err(problem) = self.restore_stream() {
                    tracing::debug!(%problem, "the stream could not be looked up after a failed publish");
                }
                return Err(error);
            }
        };
        let mut duplicates = self.index_and_get_duplicates(batch, &answers)?.into_iter();
        let mut outcomes = Vec::with_capacity(batch.len());
        for (event, answer) in batch.iter().zip(answers) {
            outcomes.push(match answer {
                PublishAnswer::New(_) => SendOutcome::Held,
                PublishAnswer::Duplicate(_) => {
                    match duplicates.next().flatten().and_then(|message| event_of(&self.layout, &message)) {
                        Some(there) if !there.same_content(event) => SendOutcome::Conflict,
                        // Also if the stored event was removed after it was handled.
                        _ => SendOutcome::Known,
                    }
                }
                PublishAnswer::Full => {
                    self.was_full.store(true, Ordering::SeqCst);
                    (self.on_full)(());
                    SendOutcome::Full { max_backlog: self.settings.max_messages }
                }
                PublishAnswer::TooLarge(reason) => SendOutcome::Refused(reason),
                PublishAnswer::WrongLast => SendOutcome::Refused("another event was expected before it".to_owned()),
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
        answers: &[PublishAnswer],
    ) -> Result<Vec<Option<StoredMessage>>> {
        let now = self.clock.time(self.runtime.generation());
        let is_plain = |(event, answer): (&Event, &PublishAnswer)| match answer {
            PublishAnswer::New(_) => shows_place(event.id(), now),
            PublishAnswer::Duplicate(_) => false,
            _ => true,
        };
        if batch.iter().zip(answers).all(is_plain) {
            return Ok(Vec::new());
        }
        let ids: Vec<EventId> = batch.iter().map(|event| event.id().clone()).collect();
        let (publisher, answers) = (Arc::clone(self), answers.to_vec());
        self.runtime.call(move |session| async move {
            publisher.index(&session, &ids, &answers).await?;
            let get = |it: &PublishAnswer| {
                if let PublishAnswer::Duplicate(sequence) = it { Some(Get::Sequence(*sequence)) } else { None }
            };
            let duplicates: Vec<Get> = answers.iter().filter_map(get).collect();
            message::get_all(&session, &publisher.layout.stream, &duplicates).await
        })
    }

    async fn index(&self, session: &Session, ids: &[EventId], answers: &[PublishAnswer]) -> Result<()> {
        let mut now = self.clock.time(session.generation);
        let new = |it: &PublishAnswer| if let PublishAnswer::New(sequence) = it { Some(*sequence) } else { None };
        if now.is_none()
            && let Some(last) = answers.iter().rev().find_map(new)
            && let Some(message) = message::get(session, &self.layout.stream, Get::Sequence(last)).await?
        {
            self.clock.set(session, &message);
            now = Some(message.stored_at);
        }
        let mut places = Vec::new();
        for (id, answer) in ids.iter().zip(answers) {
            if let PublishAnswer::New(sequence) | PublishAnswer::Duplicate(sequence) = answer
                && !shows_place(id, now)
            {
                places.push((self.kv.event_key(AT, id), kv::write(sequence)));
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
pub(crate) struct NatsMirror(pub(crate) Arc<Publisher>);

impl Mirror for NatsMirror {
    fn send(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>> {
        self.0.send(batch, meanwhile)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use eventbroker::Source;

    use super::*;
    use crate::transport;

    /// Accepts a login, and then answers everything with an error.
    fn refuse_after_login(mut stream: TcpStream) -> std::io::Result<()> {
        writeln!(stream, "INFO {{\"version\":\"2.11.0\",\"headers\":true,\"max_payload\":1048576}}\r")?;
        for line in BufReader::new(stream.try_clone()?).lines() {
            match line?.as_str() {
                line if line.starts_with("CONNECT") => {}
                "PING" => stream.write_all(b"PONG\r\n")?,
                _ => stream.write_all(b"-ERR 'no publishes today'\r\n")?,
            }
        }
        Ok(())
    }

    #[test]
    fn a_failed_publish_has_its_own_error_if_the_stream_is_not_found_either() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("nats://{}", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            // Only the publish connection is served; the session finds no server.
            let stream = listener.accept().map(|(stream, _)| stream);
            drop(listener);
            stream.and_then(refuse_after_login)
        });
        let settings = Arc::new(Nats::new(url));
        let (runtime, conn) = transport::open(&settings, "boot").expect("it is prepared");
        let layout = Arc::new(Layout::new(&settings));
        let clock = Arc::new(ServerClock::new(&KeyValue::new(&settings), "boot"));
        let publisher =
            Publisher::new(&Arc::new(runtime), conn, &settings, &layout, &clock, Box::new(|()| panic!("it is full")));
        let event = Event::builder(Source::System, "shop.orders.create").build().expect("an event");
        let error = Arc::new(publisher).send(&[event], &mut || ()).expect_err("the publish is refused");
        assert!(error.to_string().contains("no publishes today"), "{error}");
    }
}
