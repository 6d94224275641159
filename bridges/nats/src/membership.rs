//! Members: the heartbeat of this provider, the name of its instance, and which members live. The server's clock judges the age of a heartbeat.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::Subject;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::jetstream::api::cut_off;
use crate::jetstream::kv::{self, BOOT, NAME, USED};
use crate::jetstream::message::{self, PublishAnswer};
use crate::jetstream::names::token;
use crate::jetstream::{KeyValue, NewMessage, Result, ServerClock, StoredMessage};
use crate::subscriptions::Subscriptions;
use crate::transport::{Runtime, Session};

/// A provider without a heartbeat for this number of leases is gone: its broadcast subscriptions are removed.
pub(crate) const GONE_AFTER: u32 = 10;
/// How often the release of the instance's name is tried.
const TRIES: usize = 5;

/// The heartbeat of a provider.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Heartbeat {
    /// The durable names of the subscriptions that it serves.
    #[serde(rename = "units")]
    durables: Vec<String>,
    /// The provider is alive for this time, in milliseconds.
    lease: u64,
}

/// The state of this member.
#[derive(Debug, Default)]
struct MemberState {
    /// The name of the instance, once it has one.
    name: String,
    /// The sequence of the record of the name.
    name_sequence: u64,
    /// The result of the last posted heartbeat: whether this member has the name.
    last_result: Option<Result<bool>>,
}

/// This provider as a member.
pub(crate) struct Membership {
    kv: KeyValue,
    clock: Arc<ServerClock>,
    subscriptions: Arc<Subscriptions>,
    lease: Duration,
    /// Tells this provider from all others.
    pub(crate) boot: String,
    state: Mutex<MemberState>,
}

impl Membership {
    pub(crate) fn new(
        kv: &KeyValue,
        clock: &Arc<ServerClock>,
        subscriptions: &Arc<Subscriptions>,
        lease: Duration,
        boot: String,
    ) -> Self {
        let (clock, subscriptions) = (Arc::clone(clock), Arc::clone(subscriptions));
        Self { kv: kv.clone(), clock, subscriptions, lease, boot, state: Mutex::default() }
    }

    /// The name of the instance, or the boot id if it has none.
    pub(crate) fn instance(&self) -> String {
        let name = self.state.lock().name.clone();
        if name.is_empty() { self.boot.clone() } else { name }
    }

    /// Joins with the name of an instance. False if another member has it.
    pub(crate) fn join(self: &Arc<Self>, runtime: &Runtime, name: &str) -> Result<bool> {
        self.state.lock().name_sequence = 0;
        let (member, as_name) = (Arc::clone(self), name.to_owned());
        let is_ours = runtime.call(move |session| async move { member.beat_as(&session, &as_name).await })?;
        if is_ours {
            name.clone_into(&mut self.state.lock().name);
        }
        Ok(is_ours)
    }

    /// Records this provider as a member of a subscription, before it serves that.
    pub(crate) async fn announce(&self, session: &Session, durable: &str) -> Result<()> {
        let mut durables = self.subscriptions.durables();
        durables.push(durable.to_owned());
        self.kv.put_all(session, vec![(self.kv.key(USED, durable), Vec::new()), self.record(durables)]).await
    }

    /// The key and the value of a heartbeat.
    fn record(&self, durables: Vec<String>) -> (String, Vec<u8>) {
        let lease = self.lease.as_millis().try_into().unwrap_or(u64::MAX);
        (self.kv.key(BOOT, &self.boot), kv::write(&Heartbeat { durables, lease }))
    }

    /// Sends a heartbeat. False if another member has the name of the instance.
    pub(crate) async fn heartbeat(&self, session: &Session) -> Result<bool> {
        let name = self.state.lock().name.clone();
        self.beat_as(session, &name).await
    }

    /// Sends a heartbeat, without a wait for its result.
    pub(crate) fn post_heartbeat(self: &Arc<Self>, runtime: &Runtime) {
        let member = Arc::clone(self);
        runtime.post(move |session| match session {
            Ok(session) => Some(Box::pin(async move {
                let result = member.heartbeat(&session).await;
                member.state.lock().last_result = Some(result);
            })),
            Err(error) => {
                member.state.lock().last_result = Some(Err(error));
                None
            }
        });
    }

    /// The result of the last posted heartbeat, once.
    pub(crate) fn take_last_result(&self) -> Result<bool> {
        self.state.lock().last_result.take().unwrap_or(Ok(true))
    }

    async fn beat_as(&self, session: &Session, name: &str) -> Result<bool> {
        let kv = &self.kv;
        let durables = self.subscriptions.durables();
        let used = durables.iter().map(|durable| NewMessage::new(kv.key(USED, durable), Vec::new()));
        let mut messages: Vec<NewMessage> = used.collect();
        let (key, value) = self.record(durables);
        messages.push(NewMessage::new(key, value));
        let key = kv.key(NAME, &token(name));
        if !name.is_empty() {
            let last = self.state.lock().name_sequence;
            messages.push(NewMessage::new(key.clone(), self.boot.clone()).behind(last)?);
        }
        let last_answer = message::publish_all(session, messages).await?.pop();
        if name.is_empty() {
            return Ok(true);
        }
        match last_answer {
            Some(PublishAnswer::WrongLast) => {}
            Some(answer) => {
                self.state.lock().name_sequence = answer.sequence()?;
                return Ok(true);
            }
            None => return Err(cut_off()),
        }
        // A member has the name or had it, or the answer to an earlier heartbeat of this one was lost.
        let found = kv.get(session, &key).await?;
        let last = found.as_ref().map_or(0, |entry| entry.sequence);
        if let Some(found) = found.filter(|entry| !entry.payload.is_empty() && entry.payload != self.boot.as_bytes()) {
            let now = self.clock.read(session, kv).await?;
            if age(now, &found) < self.lease {
                return Ok(false);
            }
        }
        let taken = kv.replace(session, &key, last, self.boot.clone().into_bytes()).await?;
        if let Some(sequence) = taken {
            self.state.lock().name_sequence = sequence;
        }
        Ok(taken.is_some())
    }

    /// Whether no other living member serves a subscription.
    pub(crate) async fn is_alone(&self, session: &Session, durable: &str) -> Result<bool> {
        let now = self.clock.read(session, &self.kv).await?;
        let own = self.kv.key(BOOT, &self.boot);
        let living = living_at(session, &self.kv, now, 1).await?;
        let serves = |(key, heartbeat): &(Subject, Heartbeat)| {
            key.as_str() != own && heartbeat.durables.iter().any(|it| it == durable)
        };
        Ok(!living.iter().any(serves))
    }

    /// Removes the name and the heartbeat of this provider.
    pub(crate) async fn leave(&self, session: &Session) -> Result<()> {
        let (kv, name) = (&self.kv, self.state.lock().name.clone());
        let key = kv.key(NAME, &token(&name));
        // A last heartbeat may come between.
        for _ in 0..if name.is_empty() { 0 } else { TRIES } {
            let found = kv.get(session, &key).await?;
            let Some(found) = found.filter(|found| found.payload == self.boot.as_bytes()) else { break };
            if message::delete(session, &kv.stream, found.sequence).await? {
                break;
            }
        }
        kv.remove(session, [kv.key(BOOT, &self.boot), self.clock.key.clone()]).await
    }
}

/// The age of a message at a time of the server.
pub(crate) fn age(now: SystemTime, entry: &StoredMessage) -> Duration {
    now.duration_since(entry.stored_at).unwrap_or_default()
}

/// The number of providers whose last heartbeat is younger than `leases` of their leases.
pub(crate) async fn living(session: &Session, kv: &KeyValue, clock: &ServerClock, leases: u32) -> Result<usize> {
    let now = clock.read(session, kv).await?;
    kv.remove(session, [clock.key.clone()]).await?;
    Ok(living_at(session, kv, now, leases).await?.len())
}

async fn living_at(
    session: &Session,
    kv: &KeyValue,
    now: SystemTime,
    leases: u32,
) -> Result<Vec<(Subject, Heartbeat)>> {
    let living = |entry: StoredMessage| {
        let heartbeat: Heartbeat = kv::read(&entry).unwrap_or_default();
        let lives = age(now, &entry) < Duration::from_millis(heartbeat.lease).saturating_mul(leases);
        lives.then_some((entry.subject, heartbeat))
    };
    Ok(kv.all(session, &format!("{BOOT}.>")).await?.into_iter().filter_map(living).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heartbeat_has_its_stored_form() {
        let stored = r#"{"units":["workers==all"],"lease":30000}"#;
        let heartbeat: Heartbeat = serde_json::from_str(stored).expect("it is a heartbeat");
        assert_eq!((heartbeat.durables.join(" ").as_str(), heartbeat.lease), ("workers==all", 30_000));
        assert_eq!(serde_json::to_string(&heartbeat).expect("it is JSON"), stored);
    }
}
