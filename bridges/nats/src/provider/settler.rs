//! The way back: subscriptions and verdicts. The server takes a late acknowledgement from whoever sends it, so nobody is told of a lost lease.

use std::collections::{HashMap, HashSet};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, LeaseOutcome, LeaseToken, Registration, Settlement, Settler};
use eventbroker::{Pattern, Scope, StartPosition};
use futures_util::future::try_join_all;

use crate::consume::floors;
use crate::jetstream::kv::write;
use crate::jetstream::message::{self as js, Ack, DONE, GIVEN_BACK, IN_PROGRESS};
use crate::jetstream::names::token;
use crate::membership::{self as members, BOOT, Life, NAME, show_life};
use crate::partitions::claims as shares;
use crate::provider::backend::{Database, Held, Served};
use crate::query::store;
use crate::settings::Status;
use crate::settle::lease_record::{self as leases, Note};
use crate::settle::outcome::{End, tell};
use crate::settle::pending_acks as unconfirmed;
use crate::subscriptions::{self as registry, Info, USED};
use crate::transport::runtime::Session;

/// How often the name of the instance is given back.
const TRIES: usize = 5;

#[derive(Debug)]
pub(crate) struct NatsSettler {
    database: Arc<Database>,
    life: Arc<Life>,
    last_beat: Option<Instant>,
    /// When it was last noted how far the consumers have come.
    last_note: Option<Instant>,
    /// What a call has told before it failed: it comes again.
    told: HashSet<u64>,
}

impl NatsSettler {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self {
            database: Arc::clone(database),
            life: Arc::default(),
            last_beat: None,
            last_note: None,
            told: HashSet::new(),
        }
    }

    /// The name that this instance has, if it has one.
    fn name(&self) -> String {
        let member = self.database.member();
        if member == self.database.boot { String::new() } else { member }
    }

    /// Lets the partitions of a subscription go that it does not serve any more. If the server does not hear of it, they are free when its lease
    /// has ended.
    fn leave(&self, name: &str, unit: &str) {
        let database = Arc::clone(&self.database);
        database.served.lock().remove(name);
        let unwanted = database.intake.drop_all(|source| source.unit == unit);
        let on_thread = Arc::clone(&database);
        let told = database
            .runtime
            .call(move |session| async move { leases::give_back(&session, &on_thread, unwanted).await })
            .and_then(|()| shares::leave(&database, slice::from_ref(&unit.to_owned())));
        if let Err(error) = told {
            tracing::debug!(%error, "its partitions are free when its lease has ended");
        }
    }

    /// Of these leases, those on messages of partitions that another member has taken over: nobody asks for them any more.
    fn taken_over(&self, tokens: impl Iterator<Item = LeaseToken>) -> Result<Vec<LeaseToken>, BackendError> {
        let database = &self.database;
        if database.partitions() == 0 {
            return Ok(Vec::new());
        }
        shares::renew(database)?;
        let shares = database.shares.lock();
        let mut leases = database.leases.lock();
        let is_owned = |held: &Held| held.leg.partition.is_none_or(|number| shares.owns(&held.leg.unit, number));
        let gone = |token: &LeaseToken| leases.get(&token.0).is_some_and(|held| !is_owned(held));
        let lost: Vec<LeaseToken> = tokens.filter(gone).collect();
        lost.iter().for_each(|token| _ = leases.remove(&token.0));
        Ok(lost)
    }

    /// Shows that this provider is alive, without waiting for what comes of it. False if the name was lost.
    fn beat(&mut self) -> Result<bool, BackendError> {
        let said = self.life.said.lock().take().unwrap_or(Ok(true));
        let is_early = self.last_beat.is_some_and(|at| at.elapsed() < self.database.settings.lease_time / 2);
        if is_early && said.is_ok() {
            return said;
        }
        self.last_beat = Some(Instant::now());
        let (database, life, name) = (Arc::clone(&self.database), Arc::clone(&self.life), self.name());
        self.database.runtime.post(move |session| match session {
            Ok(session) => Some(Box::pin(async move {
                let said = show_life(&session, &database, &life, &name).await;
                *life.said.lock() = Some(said);
            })),
            Err(error) => {
                *life.said.lock() = Some(Err(error));
                None
            }
        });
        said
    }
}

impl Settler for NatsSettler {
    fn join(&mut self, instance_id: &str) -> Result<bool, BackendError> {
        let (database, life, name) = (Arc::clone(&self.database), Arc::clone(&self.life), instance_id.to_owned());
        *life.note.lock() = 0;
        let is_ours = self
            .database
            .runtime
            .call(move |session| async move { show_life(&session, &database, &life, &name).await })?;
        if is_ours {
            instance_id.clone_into(&mut self.database.member.lock());
        }
        Ok(is_ours)
    }

    fn register(&mut self, registration: &Registration) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let pattern =
            Pattern::parse(&registration.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
        let is_owned = registration.scope == Scope::Broadcast;
        let instance = if is_owned { database.member() } else { String::new() };
        let owner = if is_owned && !registration.durable { database.boot.clone() } else { String::new() };
        let unit = database.unit(&registration.name, if owner.is_empty() { &instance } else { &owner });
        let info = Info {
            group: database.group().to_owned(),
            name: registration.name.to_string(),
            pattern: pattern.as_str().to_owned(),
            instance,
            durable: is_owned && registration.durable,
            owner,
            ..Info::default()
        };
        let (start, change, of) = (registration.start.clone(), registration.change_pattern, unit.clone());
        let (on_thread, new) = (Arc::clone(&database), info.clone());
        let known = database.runtime.call(move |session| async move {
            let start = first_of(&session, &on_thread, &start).await?;
            let registered = registry::register(&session, &on_thread, &of, Info { start, ..new }, change).await?;
            if registered.is_ok() {
                // At once, so that no other member takes itself for the only one.
                let mut units: Vec<String> = on_thread.served.lock().values().map(|it| it.unit.clone()).collect();
                units.push(of.clone());
                let used = (on_thread.state.key(USED, &of), Vec::new());
                let notes = vec![used, members::sign_of_life(&on_thread, units)];
                on_thread.state.put_all(&session, notes).await?;
            }
            Ok(registered)
        })?;
        let known = known.map_err(|other| {
            let Info { name, group, pattern, .. } = &info;
            BackendError::Refused(format!(
                "the subscription {name:?} of the group {group:?} has the pattern {other}, not {pattern}"
            ))
        })?;
        let legs = known.legs(&database, &unit).into_iter().map(Arc::new).collect();
        database.served.lock().insert(Arc::clone(&registration.name), Served { unit, info: known, legs });
        Ok(())
    }

    fn unregister(&mut self, name: &str) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let served = database.served.lock().get(name).cloned();
        if let Some(served) = &served
            && database.partitions() > 0
        {
            self.leave(name, &served.unit);
        }
        if let Some(unit) = served.filter(|it| it.info.owner == database.boot).map(|it| it.unit) {
            let on_thread = Arc::clone(&database);
            database.runtime.call(move |session| async move { registry::forget(&session, &on_thread, &unit).await })?;
        }
        database.served.lock().remove(name);
        database.intake.ring();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<bool, BackendError> {
        let database = Arc::clone(&self.database);
        let units = [String::new(), database.member()].map(|owner| database.unit(name, &owner));
        let on_thread = Arc::clone(&database);
        database.runtime.call(move |session| async move {
            let mut was_known = false;
            for unit in &units {
                was_known |= registry::forget(&session, &on_thread, unit).await?;
            }
            Ok(was_known)
        })
    }

    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = Arc::clone(&self.database);
        let (mut lost, mut plain, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let (mut plain_tokens, mut tokens, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let is_full = database.settings.status == Status::Full;
        lost.extend(self.taken_over(settlements.iter().map(|it| it.token))?);
        {
            let mut leases = database.leases.lock();
            for Settlement { token, outcome, .. } in settlements {
                if self.told.contains(&token.0) || lost.contains(token) {
                    continue;
                }
                let Some(held) = leases.get_mut(&token.0) else {
                    lost.push(*token);
                    continue;
                };
                held.is_ending = true;
                match outcome {
                    LeaseOutcome::Done { attempts } if *attempts <= 1 && !held.leg.again && !held.noted && !is_full => {
                        plain.push(held.ack(DONE));
                        plain_tokens.push(token.0);
                        continue;
                    }
                    LeaseOutcome::Done { .. } | LeaseOutcome::Dead { .. } => others.push(held.ack(DONE)),
                    _ => {
                        // What goes back comes before what is behind it.
                        database.intake.hold(&held.leg.ack_name());
                        others.push(held.ack(GIVEN_BACK));
                    }
                }
                tokens.push((token.0, *outcome == LeaseOutcome::Released));
                ends.push(End { held: held.clone(), outcome: outcome.clone() });
            }
        }
        if !others.is_empty() {
            let on_thread = Arc::clone(&database);
            database.runtime.call(move |session| async move {
                try_join_all(ends.iter().map(|end| tell(&session, &on_thread, end))).await?;
                js::ack_all(&session, &others).await
            })?;
            self.told.extend(tokens.iter().map(|(token, _)| *token));
            let (released, ended): (Vec<_>, Vec<_>) = tokens.into_iter().partition(|(_, is_released)| *is_released);
            database.settle(&ended.iter().map(|(token, _)| *token).collect::<Vec<_>>());
            let mut leases = database.leases.lock();
            released.iter().for_each(|(token, _)| _ = leases.remove(token));
            drop(leases);
            database.intake.make_room(released.len());
        }
        if !plain.is_empty() {
            unconfirmed::send(&database, plain, plain_tokens)?;
        }
        self.told.clear();
        Ok(lost)
    }

    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError> {
        let database = Arc::clone(&self.database);
        let Some(held) = database.leases.lock().get(&token.0).cloned() else { return Ok(false) };
        let key = leases::key(&database, &held.leg.unit, held.leg.again, held.sequence);
        let note = if begun { Note { begun, ..held.note } } else { Note::default() };
        let on_thread = Arc::clone(&database);
        database.runtime.call(move |session| async move {
            if begun {
                on_thread.state.put(&session, &key, write(&note)).await.map(drop)
            } else {
                on_thread.state.forget(&session, vec![key]).await.map(drop)
            }
        })?;
        if let Some(held) = database.leases.lock().get_mut(&token.0) {
            (held.note, held.noted) = (note, begun);
        }
        Ok(true)
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.database.settings.lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = Arc::clone(&self.database);
        if database.intake.beat(database.settings.lease_time, database.runtime.generation()) {
            // What is still to be read on this connection may be somebody else's by now.
            database.runtime.post(|session| {
                session.ok()?.give_up("the process has slept");
                None
            });
        }
        if self.last_note.is_none_or(|at| at.elapsed() >= database.settings.lease_time / 2) {
            self.last_note = Some(Instant::now());
            floors::note(&database);
        }
        let began = Instant::now();
        let lost = self.taken_over(tokens.iter().copied())?;
        let mut acks: Vec<Ack> = {
            let leases = database.leases.lock();
            tokens.iter().filter_map(|token| leases.get(&token.0)).map(|held| held.ack(IN_PROGRESS)).collect()
        };
        acks.extend(database.intake.extensions(IN_PROGRESS));
        if acks.is_empty() {
            return self.beat().map(|_| lost);
        }
        let (on_thread, life, name) = (Arc::clone(&database), Arc::clone(&self.life), self.name());
        let is_ours = database.runtime.call(move |session| async move {
            js::ack_all(&session, &acks).await?;
            show_life(&session, &on_thread, &life, &name).await
        })?;
        self.last_beat = Some(Instant::now());
        let (mut leases, lease) = (database.leases.lock(), database.settings.lease_time);
        tokens.iter().for_each(|token| _ = leases.get_mut(&token.0).map(|held| held.extend(began, lease)));
        if is_ours { Ok(lost) } else { Ok(tokens.to_vec()) }
    }
}

/// The first message that a subscription gets; 0 is the next one.
async fn first_of(session: &Session, database: &Database, start: &StartPosition) -> Result<u64, BackendError> {
    match start {
        StartPosition::New => Ok(0),
        StartPosition::After(id) => match store::find(session, database, id).await? {
            Some((place, _)) => Ok(place + 1),
            None => Err(BackendError::Refused(format!("start: the event of {start:?} is not held"))),
        },
        StartPosition::From(time) => store::first_since(session, database, *time).await,
        _ => Ok(1),
    }
}

/// What only this provider has served goes with it.
impl Drop for NatsSettler {
    fn drop(&mut self) {
        let database = Arc::clone(&self.database);
        if let Err(error) = unconfirmed::finish(&database).and_then(|()| floors::note_last(&database)) {
            tracing::debug!(%error, "what was handled may come again");
        }
        let served: HashMap<Arc<str>, Served> = std::mem::take(&mut database.served.lock());
        let units = database.shares.lock().units();
        let own: Vec<String> =
            served.into_values().filter(|it| it.info.owner == database.boot).map(|it| it.unit).collect();
        let key = database.state.key(NAME, &token(&self.name()));
        let boot = database.state.key(BOOT, &database.boot);
        let clock = database.state.key("clock", &database.boot);
        let (on_thread, has_name) = (Arc::clone(&database), !self.name().is_empty());
        if database.partitions() > 0
            && let Err(error) = shares::leave(&database, &units)
        {
            tracing::debug!(%error, "its partitions are free when its lease has ended");
        }
        // A server that is away forgets all this by itself.
        let told = database.runtime.call(move |session| async move {
            for unit in own {
                registry::forget(&session, &on_thread, &unit).await?;
            }
            let state = &on_thread.state;
            // A last sign of life may come in between.
            for _ in 0..if has_name { TRIES } else { 0 } {
                let found = state.get(&session, &key).await?;
                let Some(found) = found.filter(|found| found.payload == on_thread.boot.as_bytes()) else { break };
                if js::delete(&session, &state.stream, found.sequence).await? {
                    break;
                }
            }
            state.forget(&session, vec![boot, clock]).await
        });
        if let Err(error) = told {
            tracing::debug!(%error, "the server was not told of the end");
        }
    }
}
