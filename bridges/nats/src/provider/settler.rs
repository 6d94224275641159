//! The settler: registers subscriptions, sends the verdicts of leases, and extends them. The room `settle` says where a lost lease is noticed.

use std::collections::HashSet;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, LeaseOutcome, LeaseToken, Registration, Settlement, Settler};
use eventbroker::{Pattern, Scope, StartPosition};
use futures_util::future::try_join_all;

use super::backend::Backend;
use crate::jetstream::ack::{IN_PROGRESS, ack_all};
use crate::jetstream::{Ack, Result, kv};
use crate::partitions::HandoverEvent;
use crate::query::{Locator, first_since};
use crate::settings::Status;
use crate::settle::{Ended, OutcomeRecorder, Verdicts, sort_verdicts};
use crate::subscriptions::{LeaseRecord, SubscriptionRecord, lease_key};
use crate::transport::Session;

pub(super) struct NatsSettler {
    backend: Arc<Backend>,
    last_heartbeat: Option<Instant>,
    /// The leases whose verdicts a call has sent before it failed. The broker repeats them.
    sent: HashSet<u64>,
}

impl NatsSettler {
    pub(super) fn new(backend: &Arc<Backend>) -> Self {
        Self { backend: Arc::clone(backend), last_heartbeat: None, sent: HashSet::new() }
    }

    /// Releases the partitions of a subscription that is no longer served. If that fails, they are free when the lease of this member has expired.
    fn release(&self, name: &str, durable: &str) {
        let Backend { subscriptions, buffer, puller, claims, .. } = &*self.backend;
        let Some(claims) = claims else { return };
        subscriptions.remove(name);
        let back = buffer.drop_all(|consumer| consumer.durable == durable);
        let left = puller.give_back_now(back).and_then(|()| claims.leave(slice::from_ref(&durable.to_owned())));
        if let Err(error) = left {
            tracing::debug!(%error, "partitions were not released; they are free when the lease has expired");
        }
    }

    /// With partitions: renews the claims, and takes the leases of partitions that other members have taken over.
    fn renew_and_take_lost(&self, tokens: impl Iterator<Item = LeaseToken>) -> Result<Vec<LeaseToken>> {
        let Backend { claims, held, buffer, .. } = &*self.backend;
        let Some(claims) = claims else { return Ok(Vec::new()) };
        claims.renew_and_take_lost(held, buffer.is_silent(), tokens)
    }

    /// Sends a heartbeat if one is due, without a wait. False if an earlier one has lost the name of the instance.
    fn post_heartbeat(&mut self) -> Result<bool> {
        let Backend { settings, membership, runtime, .. } = &*self.backend;
        let result = membership.take_last_result();
        let every = settings.lease_times().heartbeat_every();
        let is_early = self.last_heartbeat.is_some_and(|at| at.elapsed() < every);
        if !is_early || result.is_err() {
            self.last_heartbeat = Some(Instant::now());
            membership.post_heartbeat(runtime);
        }
        result
    }

    /// Sends the verdicts that need more than an acknowledgement.
    fn send_ended(&mut self, ended: Vec<Ended>, acks: Vec<Ack>) -> Result<()> {
        let tokens: Vec<u64> = ended.iter().map(|it| it.token).collect();
        let backend = Arc::clone(&self.backend);
        self.backend.runtime.call(move |session| async move {
            let (kv, group, kept) = (&backend.kv, &*backend.layout.group, backend.settings.status);
            let recorder = OutcomeRecorder { session: &session, kv, group, kept };
            try_join_all(ended.iter().map(|it| recorder.record_and_clean_up(it))).await?;
            ack_all(&session, &acks).await
        })?;
        self.sent.extend(tokens);
        Ok(())
    }
}

impl Settler for NatsSettler {
    fn join(&mut self, instance_id: &str) -> Result<bool> {
        self.backend.membership.join(&self.backend.runtime, instance_id)
    }

    fn register(&mut self, registration: &Registration) -> Result<()> {
        let Backend { layout, membership, runtime, subscriptions, .. } = &*self.backend;
        let pattern =
            Pattern::parse(&registration.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
        let is_broadcast = registration.scope == Scope::Broadcast;
        let instance = if is_broadcast { membership.instance() } else { String::new() };
        let owner = if is_broadcast && !registration.durable { membership.boot.clone() } else { String::new() };
        let durable = layout.durable(&registration.name, if owner.is_empty() { &instance } else { &owner });
        let record = SubscriptionRecord {
            group: layout.group.clone(),
            name: registration.name.to_string(),
            pattern: pattern.as_str().to_owned(),
            instance,
            is_durable: is_broadcast && registration.durable,
            owner,
            ..SubscriptionRecord::default()
        };
        let (start, may_change) = (registration.start.clone(), registration.change_pattern);
        let (backend, new, name) = (Arc::clone(&self.backend), record.clone(), durable.clone());
        let registered = runtime.call(move |session| async move {
            let start = first_message(&session, &backend.locator, &start).await?;
            let new = SubscriptionRecord { start, ..new };
            let registered = backend.subscriptions.register(&session, &name, new, may_change).await?;
            if registered.is_ok() {
                // At once, so that no other member takes itself for the only one.
                backend.membership.announce(&session, &name).await?;
            }
            Ok(registered)
        })?;
        let record = registered.map_err(|other| {
            let SubscriptionRecord { name, group, pattern, .. } = &record;
            BackendError::Refused(format!(
                "the subscription {name:?} of the group {group:?} has the pattern {other}, not {pattern}"
            ))
        })?;
        subscriptions.add(&registration.name, durable, record);
        Ok(())
    }

    fn unregister(&mut self, name: &str) -> Result<()> {
        let Backend { subscriptions, membership, runtime, buffer, .. } = &*self.backend;
        if let Some(local) = subscriptions.get(name) {
            self.release(name, &local.durable);
            if local.record.owner == membership.boot {
                let subscriptions = Arc::clone(subscriptions);
                runtime.call(move |session| async move { subscriptions.forget(&session, &local.durable).await })?;
            }
        }
        subscriptions.remove(name);
        buffer.notify();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<bool> {
        let Backend { layout, membership, runtime, subscriptions, .. } = &*self.backend;
        let durables = [String::new(), membership.instance()].map(|owner| layout.durable(name, &owner));
        let subscriptions = Arc::clone(subscriptions);
        runtime.call(move |session| async move {
            let mut was_known = false;
            for durable in &durables {
                was_known |= subscriptions.forget(&session, durable).await?;
            }
            Ok(was_known)
        })
    }

    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>> {
        let backend = Arc::clone(&self.backend);
        let Backend { held, buffer, .. } = &*backend;
        // The lost leases are held no more, so the sorting of the verdicts reports them.
        self.renew_and_take_lost(settlements.iter().map(|it| it.token))?;
        let records_all = backend.settings.status == Status::Full;
        let (mut settled, mut released) = (Vec::new(), Vec::new());
        let Verdicts { plain, ended, ended_acks, lost } = {
            let mut messages = held.lock();
            let verdicts = settlements.iter().map(|it| (it.token, &it.outcome));
            let sorted = sort_verdicts(verdicts, &mut messages, &self.sent, records_all);
            for Ended { token, held, outcome } in &sorted.ended {
                if !matches!(outcome, LeaseOutcome::Done { .. } | LeaseOutcome::Dead { .. }) {
                    // A message that goes back has to come before the ones behind it.
                    buffer.on(&held.consumer.id, HandoverEvent::GivenBack);
                }
                if *outcome == LeaseOutcome::Released { &mut released } else { &mut settled }.push(*token);
            }
            sorted
        };
        if !ended.is_empty() {
            self.send_ended(ended, ended_acks)?;
            held.settle(&settled);
            let mut messages = held.lock();
            released.iter().for_each(|token| _ = messages.remove(token));
            drop(messages);
            buffer.make_room(released.len());
        }
        if !plain.tokens.is_empty() {
            backend.pending.send(plain)?;
        }
        self.sent.clear();
        Ok(lost)
    }

    fn mark(&mut self, token: LeaseToken, is_in_call: bool) -> Result<bool> {
        let Backend { runtime, kv, held, .. } = &*self.backend;
        let Some(message) = held.lock().get(&token.0).cloned() else { return Ok(false) };
        let key = lease_key(kv, &message.consumer, message.delivery.sequence);
        let record = if is_in_call {
            LeaseRecord { is_in_call, ..message.delivery.info.record }
        } else {
            LeaseRecord::default()
        };
        let store = kv.clone();
        runtime.call(move |session| async move {
            if is_in_call {
                store.put(&session, &key, kv::write(&record)).await.map(drop)
            } else {
                store.remove(&session, [key]).await
            }
        })?;
        if let Some(message) = held.lock().get_mut(&token.0) {
            let info = &mut message.delivery.info;
            (info.record, info.is_recorded) = (record, is_in_call);
        }
        Ok(true)
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.backend.settings.lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>> {
        let backend = Arc::clone(&self.backend);
        let Backend { runtime, buffer, held, .. } = &*backend;
        if buffer.note_alive(runtime.generation()) {
            // Unread messages of this session may belong to other members by now.
            runtime.give_up("the process has slept");
        }
        let began = Instant::now();
        let lost = self.renew_and_take_lost(tokens.iter().copied())?;
        let mut acks: Vec<Ack> = {
            let messages = held.lock();
            tokens.iter().filter_map(|it| messages.get(&it.0)).map(|it| it.ack(IN_PROGRESS)).collect()
        };
        acks.extend(buffer.extensions());
        if acks.is_empty() {
            return self.post_heartbeat().map(|_| lost);
        }
        let membership = Arc::clone(&backend.membership);
        let has_name = runtime.call(move |session| async move {
            ack_all(&session, &acks).await?;
            membership.heartbeat(&session).await
        })?;
        self.last_heartbeat = Some(Instant::now());
        let (mut messages, times) = (held.lock(), backend.settings.lease_times());
        tokens.iter().for_each(|it| _ = messages.get_mut(&it.0).map(|message| message.extend(began, times)));
        if has_name { Ok(lost) } else { Ok(tokens.to_vec()) }
    }
}

/// The first message for a new subscription; 0 stands for the next one.
async fn first_message(session: &Session, locator: &Locator, start: &StartPosition) -> Result<u64> {
    match start {
        StartPosition::New => Ok(0),
        StartPosition::After(id) => match locator.find(session, id).await? {
            Some((place, _)) => Ok(place + 1),
            None => Err(BackendError::Refused(format!("start: the event of {start:?} is not held"))),
        },
        StartPosition::From(time) => first_since(session, &locator.layout, *time).await,
        _ => Ok(1),
    }
}

/// The end of a provider: its own subscriptions, its name and its heartbeat go with it.
impl Drop for NatsSettler {
    fn drop(&mut self) {
        let Backend { pending, subscriptions, membership, claims, runtime, .. } = &*self.backend;
        if let Err(error) = pending.finish() {
            tracing::debug!(%error, "acknowledgements were not sent; the messages may come again");
        }
        let local = subscriptions.take();
        let own: Vec<String> =
            local.into_iter().filter(|it| it.record.owner == membership.boot).map(|it| it.durable).collect();
        if let Some(claims) = claims
            && let Err(error) = claims.leave(&claims.durables())
        {
            tracing::debug!(%error, "partitions were not released; they are free when the lease has expired");
        }
        let (subscriptions, membership) = (Arc::clone(subscriptions), Arc::clone(membership));
        let left = runtime.call(move |session| async move {
            for durable in own {
                subscriptions.forget(&session, &durable).await?;
            }
            membership.leave(&session).await
        });
        if let Err(error) = left {
            // Other members remove these records when they have expired.
            tracing::debug!(%error, "the server did not hear of the end of the provider");
        }
    }
}
