//! The stream beside the events, where the bridge keeps what it knows: one message for each thing, whose subject is its name. Subscriptions,
//! names of instances, dead letters, deliveries that are made again, statuses that the events' stream does not tell.

use async_nats::{HeaderMap, HeaderName, HeaderValue, Subject};
use bytes::Bytes;
use eventbroker::EventId;
use eventbroker::provider::BackendError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::jetstream::message::{self as js, Entry, Outgoing, Stored, Which};
use crate::jetstream::names::token;
use crate::jetstream::scan as range;
use crate::transport::runtime::Session;

/// How often a change is tried when others change the same.
const TRIES: usize = 50;

/// Where things are kept: the stream, and what its subjects begin with.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) stream: String,
    pub(crate) prefix: String,
}

impl State {
    /// What a thing is called: its kind and its name, which is a token already.
    pub(crate) fn key(&self, kind: &str, name: &str) -> String {
        format!("{}.{kind}.{name}", self.prefix)
    }

    pub(crate) fn of_event(&self, kind: &str, id: &EventId) -> String {
        self.key(kind, &token(&id.to_string()))
    }

    pub(crate) async fn get(&self, session: &Session, key: &str) -> Result<Option<Entry>, BackendError> {
        js::get(session, &self.stream, Which::LastOf(key.to_owned())).await
    }

    /// The last of each.
    pub(crate) async fn get_all(
        &self,
        session: &Session,
        keys: Vec<String>,
    ) -> Result<Vec<Option<Entry>>, BackendError> {
        let which: Vec<Which> = keys.into_iter().map(Which::LastOf).collect();
        js::get_all(session, &self.stream, &which).await
    }

    /// Notes something, whatever was noted before.
    pub(crate) async fn put(&self, session: &Session, key: &str, text: Vec<u8>) -> Result<u64, BackendError> {
        self.put_all(session, vec![(key.to_owned(), text)]).await?.pop().ok_or_else(js::cut_off)
    }

    pub(crate) async fn put_all(
        &self,
        session: &Session,
        notes: Vec<(String, Vec<u8>)>,
    ) -> Result<Vec<u64>, BackendError> {
        let message = |(key, text)| Outgoing {
            subject: Subject::from(key),
            headers: HeaderMap::new(),
            payload: Bytes::from(text),
        };
        let stored = js::publish_all(session, notes.into_iter().map(message).collect()).await?;
        stored.into_iter().map(number).collect()
    }

    /// Notes something if the last note has this number, or there is none and it is 0. Nothing if somebody else was faster.
    pub(crate) async fn replace(
        &self,
        session: &Session,
        key: &str,
        last: u64,
        text: Vec<u8>,
    ) -> Result<Option<u64>, BackendError> {
        self.replace_all(session, vec![(key.to_owned(), last, text)]).await?.pop().ok_or_else(js::cut_off)
    }

    /// The same of several, each for itself.
    pub(crate) async fn replace_all(
        &self,
        session: &Session,
        notes: Vec<(String, u64, Vec<u8>)>,
    ) -> Result<Vec<Option<u64>>, BackendError> {
        let mut messages = Vec::with_capacity(notes.len());
        for (key, last, text) in notes {
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_static("Nats-Expected-Last-Subject-Sequence"),
                last.to_string().parse::<HeaderValue>().map_err(js::unavailable)?,
            );
            messages.push(Outgoing { subject: Subject::from(key), headers, payload: Bytes::from(text) });
        }
        let told = |stored| match stored {
            Stored::Overtaken => Ok(None),
            stored => number(stored).map(Some),
        };
        js::publish_all(session, messages).await?.into_iter().map(told).collect()
    }

    /// Changes a note, and removes it if nothing is left of it. Returns what the change has said.
    pub(crate) async fn change<T, R>(
        &self,
        session: &Session,
        key: &str,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<R, BackendError>
    where
        T: Clone + Default + PartialEq + Serialize + DeserializeOwned,
    {
        for _ in 0..TRIES {
            let found = self.get(session, key).await?;
            let last = found.as_ref().map_or(0, |entry| entry.sequence);
            let before: T = found.and_then(|entry| read(&entry)).unwrap_or_default();
            let mut note = before.clone();
            let said = change(&mut note);
            let has_changed = if note == before {
                true
            } else if note == T::default() {
                js::delete(session, &self.stream, last).await?
            } else {
                self.replace(session, key, last, write(&note)).await?.is_some()
            };
            if has_changed {
                return Ok(said);
            }
        }
        Err(js::unavailable(format!("others change {key} all the time")))
    }

    /// Removes notes. Returns how many were there.
    pub(crate) async fn forget(&self, session: &Session, keys: Vec<String>) -> Result<usize, BackendError> {
        let mut count = 0;
        for found in self.get_all(session, keys).await?.into_iter().flatten() {
            count += usize::from(js::delete(session, &self.stream, found.sequence).await?);
        }
        Ok(count)
    }

    /// All notes of a kind, with the parts of a name that are known.
    pub(crate) async fn all(&self, session: &Session, kind: &str) -> Result<Vec<Entry>, BackendError> {
        range::all(session, &self.stream, &format!("{}.{kind}", self.prefix)).await
    }

    /// Adds to a counter.
    pub(crate) async fn count(&self, session: &Session, what: &str, more: u64) -> Result<(), BackendError> {
        self.change(session, &self.key("count", what), |count: &mut u64| *count += more).await
    }
}

/// What a note holds; nothing if that is not what it should be.
pub(crate) fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    serde_json::from_slice(&entry.payload).ok()
}

pub(crate) fn write(note: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(note).unwrap_or_default()
}

/// The number of something that was stored, whether now or before.
pub(crate) fn number(stored: Stored) -> Result<u64, BackendError> {
    match stored {
        Stored::New(number) | Stored::Known(number) => Ok(number),
        Stored::Full => Err(js::unavailable("the stream of the bridge is full")),
        Stored::Overtaken => Err(js::unavailable("somebody else was faster")),
        Stored::TooLarge(reason) => Err(js::unavailable(reason)),
    }
}
