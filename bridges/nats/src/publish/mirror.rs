//! The way out: the events of a batch are published one behind the other, and their answers awaited together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use eventbroker::provider::{BackendError, Mirror, SendOutcome};
use eventbroker::{Event, EventId};

use crate::jetstream::entry::{apart, event_of, time_of, write_message};
use crate::jetstream::kv::write;
use crate::jetstream::message::{self as js, Entry, Stored, Which};
use crate::jetstream::stream;
use crate::provider::backend::Database;
use crate::query::store::{AT, MAX_DELAY};
use crate::transport::runtime::Session;

#[derive(Debug)]
pub(crate) struct NatsMirror {
    database: Arc<Database>,
}

impl NatsMirror {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database) }
    }
}

impl Mirror for NatsMirror {
    fn send(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        send(&self.database, batch, meanwhile)
    }
}

/// Stores events that are not known.
pub(crate) fn send(
    database: &Arc<Database>,
    batch: &[Event],
    meanwhile: &mut dyn FnMut(),
) -> Result<Vec<SendOutcome>, BackendError> {
    let published = database.line.lock().publish(batch, |event, to| write_message(database, event, to), meanwhile);
    let stored = match published {
        Ok(stored) => stored,
        Err(error) => {
            // It may be that somebody has removed the stream; then the next try finds one.
            let on_thread = Arc::clone(database);
            database.runtime.call(move |session| async move {
                if stream::info(&session, on_thread.stream()).await?.is_none() {
                    stream::make_again(&session, &on_thread).await?.map_err(BackendError::Unavailable)?;
                }
                Ok(())
            })?;
            return Err(error);
        }
    };
    let known = look_after(database, batch, &stored)?;
    let mut known = known.into_iter();
    let mut outcomes = Vec::with_capacity(batch.len());
    for (event, stored) in batch.iter().zip(stored) {
        outcomes.push(match stored {
            Stored::New(_) => SendOutcome::Held,
            Stored::Known(_) => {
                let there = known.next().flatten().and_then(|entry| event_of(database.prefix(), &entry));
                match there {
                    Some(there) if !there.same_content(event) => SendOutcome::Conflict,
                    // Also if it was handled and is not there any more.
                    _ => SendOutcome::Known,
                }
            }
            Stored::Full => {
                database.is_crowded.store(true, Ordering::SeqCst);
                database.intake.ring();
                SendOutcome::Full { max_backlog: database.settings.max_messages }
            }
            Stored::TooLarge(reason) => SendOutcome::Refused(reason),
            Stored::Overtaken => SendOutcome::Refused("another event was expected before it".to_owned()),
        });
    }
    Ok(outcomes)
}

/// Notes where those events are whose ids do not tell it, and gets those that were known.
fn look_after(
    database: &Arc<Database>,
    batch: &[Event],
    stored: &[Stored],
) -> Result<Vec<Option<Entry>>, BackendError> {
    let now = database.server_time(database.runtime.generation());
    let is_plain = |(event, stored): (&Event, &Stored)| match stored {
        Stored::New(_) => tells(event.id(), now),
        Stored::Known(_) => false,
        _ => true,
    };
    if batch.iter().zip(stored).all(is_plain) {
        return Ok(Vec::new());
    }
    let ids: Vec<EventId> = batch.iter().map(|event| event.id().clone()).collect();
    let (on_thread, stored) = (Arc::clone(database), stored.to_vec());
    database.runtime.call(move |session| async move {
        index(&session, &on_thread, &ids, &stored).await?;
        let number = |it: &Stored| if let Stored::Known(number) = it { Some(Which::Number(*number)) } else { None };
        let known: Vec<Which> = stored.iter().filter_map(number).collect();
        js::get_all(&session, on_thread.stream(), &known).await
    })
}

/// Whether an id tells where its event is, because it was made about when that was stored.
fn tells(id: &EventId, now: Option<SystemTime>) -> bool {
    time_of(id).is_some_and(|at| now.is_some_and(|now| apart(at, now) < MAX_DELAY / 2))
}

/// Notes where those events are whose ids do not tell it.
async fn index(session: &Session, database: &Database, ids: &[EventId], stored: &[Stored]) -> Result<(), BackendError> {
    let number = |it: &Stored| if let Stored::New(number) | Stored::Known(number) = it { Some(*number) } else { None };
    let mut now = database.server_time(session.generation);
    if now.is_none()
        && let Some(last) =
            stored.iter().rev().find_map(|it| if let Stored::New(number) = it { Some(*number) } else { None })
        && let Some(entry) = js::get(session, database.stream(), Which::Number(last)).await?
    {
        database.note_server_time(session, &entry);
        now = Some(entry.stored_at);
    }
    let mut notes = Vec::new();
    for (id, stored) in ids.iter().zip(stored) {
        let Some(number) = number(stored) else { continue };
        if !tells(id, now) {
            notes.push((database.state.of_event(AT, id), write(&number)));
        }
    }
    if notes.is_empty() { Ok(()) } else { database.state.put_all(session, notes).await.map(drop) }
}
