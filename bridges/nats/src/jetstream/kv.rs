//! The second stream as a key-value store: a subject is a key, its only message the value. The bridge keeps its state here: subscriptions, names
//! of instances, dead letters, requeues, and the statuses that do not follow from the consumers.

use eventbroker::EventId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{Result, cut_off, unavailable};
use super::message::{self, Get, NewMessage, PublishAnswer, StoredMessage};
use super::names::token;
use super::scan;
use crate::settings::Nats;
use crate::transport::Session;

/// The kinds of keys; `docs/nats.md` describes each.
pub(crate) const SUBSCRIPTION: &str = "subscription";
pub(crate) const USED: &str = "used";
pub(crate) const LEASE: &str = "lease";
const AGAIN: &str = "again";
pub(crate) const DEAD: &str = "dead";
pub(crate) const OWNERS: &str = "owners";
pub(crate) const STATUS: &str = "status";
pub(crate) const FAILED: &str = "failed";
pub(crate) const AT: &str = "at";
pub(crate) const BOOT: &str = "boot";
pub(crate) const NAME: &str = "name";
pub(crate) const CLOCK: &str = "clock";
pub(crate) const PARTITIONS: &str = "partitions";
const COUNT: &str = "count";

/// How often a change is tried while other members change the same key.
const TRIES: usize = 50;

/// The stream of the bridge's state, and the first token of its subjects.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    pub(crate) stream: String,
    pub(crate) prefix: String,
}

impl KeyValue {
    pub(crate) fn new(settings: &Nats) -> Self {
        Self { stream: format!("{}_STATE", settings.stream_name), prefix: format!("{}-state", settings.subject_prefix) }
    }

    /// The key of a kind and a name, which is made of tokens.
    pub(crate) fn key(&self, kind: &str, name: &str) -> String {
        format!("{}.{kind}.{name}", self.prefix)
    }

    pub(crate) fn event_key(&self, kind: &str, id: &EventId) -> String {
        self.key(kind, &token(&id.to_string()))
    }

    /// The filter of a group's dead letters.
    pub(crate) fn dead_letters(&self, group: &str) -> String {
        format!("{}.>", self.key(DEAD, &token(group)))
    }

    /// The filter of a subscription's dead letters.
    pub(crate) fn dead_letters_of(&self, group: &str, durable: &str) -> String {
        format!("{}.{durable}.>", self.key(DEAD, &token(group)))
    }

    pub(crate) fn dead_letter(&self, group: &str, durable: &str, id: &str) -> String {
        format!("{}.{durable}.{}", self.key(DEAD, &token(group)), token(id))
    }

    /// The filter of the events that a subscription gets again.
    pub(crate) fn requeues(&self, durable: &str) -> String {
        format!("{}.>", self.key(AGAIN, durable))
    }

    pub(crate) fn requeue(&self, durable: &str, id: &str) -> String {
        format!("{}.{}", self.key(AGAIN, durable), token(id))
    }

    pub(crate) async fn get(&self, session: &Session, key: &str) -> Result<Option<StoredMessage>> {
        message::get(session, &self.stream, Get::Last(key.to_owned())).await
    }

    pub(crate) async fn get_all(
        &self,
        session: &Session,
        keys: impl IntoIterator<Item = String>,
    ) -> Result<Vec<Option<StoredMessage>>> {
        let gets: Vec<Get> = keys.into_iter().map(Get::Last).collect();
        message::get_all(session, &self.stream, &gets).await
    }

    /// The value of a key, and its sequence: the default and 0 if there is none. A value of another form counts as the default.
    pub(crate) async fn read<T: DeserializeOwned + Default>(&self, session: &Session, key: &str) -> Result<(u64, T)> {
        let found = self.get(session, key).await?;
        let sequence = found.as_ref().map_or(0, |entry| entry.sequence);
        Ok((sequence, found.as_ref().and_then(read).unwrap_or_default()))
    }

    /// Sets the value of a key, and returns its sequence.
    pub(crate) async fn put(&self, session: &Session, key: &str, value: Vec<u8>) -> Result<u64> {
        message::publish(session, NewMessage::new(key.to_owned(), value)).await?.sequence()
    }

    pub(crate) async fn put_all(&self, session: &Session, values: Vec<(String, Vec<u8>)>) -> Result<()> {
        let messages = values.into_iter().map(|(key, value)| NewMessage::new(key, value));
        let answers = message::publish_all(session, messages.collect()).await?;
        answers.into_iter().try_for_each(|answer| answer.sequence().map(drop))
    }

    /// Sets the value of a key whose last sequence is `last`; 0 stands for no value. `None` if another member was faster.
    pub(crate) async fn replace(&self, session: &Session, key: &str, last: u64, value: Vec<u8>) -> Result<Option<u64>> {
        self.replace_all(session, vec![(key.to_owned(), last, value)]).await?.pop().ok_or_else(cut_off)
    }

    /// [`replace`](Self::replace) of several keys, each for itself.
    pub(crate) async fn replace_all(
        &self,
        session: &Session,
        values: Vec<(String, u64, Vec<u8>)>,
    ) -> Result<Vec<Option<u64>>> {
        let message = |(key, last, value)| NewMessage::new(key, value).behind(last);
        let messages = values.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
        let sequence = |answer| match answer {
            PublishAnswer::WrongLast => Ok(None),
            answer => answer.sequence().map(Some),
        };
        message::publish_all(session, messages).await?.into_iter().map(sequence).collect()
    }

    /// Changes a value, and removes it if it becomes the default. Returns the result of the change.
    pub(crate) async fn change<T, R>(
        &self,
        session: &Session,
        key: &str,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<R>
    where
        T: Clone + Default + PartialEq + Serialize + DeserializeOwned,
    {
        for _ in 0..TRIES {
            let (last, before) = self.read::<T>(session, key).await?;
            let mut value = before.clone();
            let result = change(&mut value);
            let has_changed = if value == before {
                true
            } else if value == T::default() {
                message::delete(session, &self.stream, last).await?
            } else {
                self.replace(session, key, last, write(&value)).await?.is_some()
            };
            if has_changed {
                return Ok(result);
            }
        }
        Err(unavailable(format!("other members change {key} all the time")))
    }

    /// Removes the values of keys, those that exist.
    pub(crate) async fn remove(&self, session: &Session, keys: impl IntoIterator<Item = String>) -> Result<()> {
        for found in self.get_all(session, keys).await?.into_iter().flatten() {
            message::delete(session, &self.stream, found.sequence).await?;
        }
        Ok(())
    }

    /// The values of a kind of key, `KIND.>`, or of a narrower filter.
    pub(crate) async fn all(&self, session: &Session, kind: &str) -> Result<Vec<StoredMessage>> {
        scan::all(session, &self.stream, &format!("{}.{kind}", self.prefix)).await
    }

    pub(crate) fn counter(&self, name: &str) -> String {
        self.key(COUNT, name)
    }

    pub(crate) async fn count(&self, session: &Session, counter: &str, more: u64) -> Result<()> {
        self.change(session, &self.counter(counter), |count: &mut u64| *count += more).await
    }
}

/// A value; `None` if it has another form.
pub(crate) fn read<T: DeserializeOwned>(entry: &StoredMessage) -> Option<T> {
    serde_json::from_slice(&entry.payload).ok()
}

pub(crate) fn write(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
