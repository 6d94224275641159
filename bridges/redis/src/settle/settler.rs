//! The way back: subscriptions and verdicts. What tells a member that it has lost a delivery is who the consumer group says it belongs to. What
//! is written down of a verdict is told in [`ends`](crate::settle::outcome).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::{BackendError, LeaseOutcome, LeaseToken, Registration, Settlement, Settler};
use eventbroker::query::Order;
use eventbroker::{Pattern, Scope, StartPosition};
use redis::Value;

use crate::partitions::ownership as share;
use crate::query::store;
use crate::scripts;
use crate::scripts::entry::{list, number, since_epoch, text, texts, unexpected};
use crate::scripts::merge_scan::places_at;
use crate::subscriptions::{Info, make};
use crate::transport::link::{Database, Held, Link, Served, millis};

/// A broadcast subscription whose provider shows no sign of life for so many lease times is forgotten.
const FORGET_AFTER: u32 = 10;
/// Leases that one script extends.
const EXTEND: usize = 1_000;

/// The key of a stream, and a subscription's consumer group.
type Place = (String, Arc<str>);

#[derive(Debug)]
pub(crate) struct RedisSettler {
    pub(crate) database: Arc<Database>,
    pub(crate) link: Link,
    /// What tells each stream from one that comes after it, as far as it is known.
    lives: HashMap<String, String>,
}

impl RedisSettler {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), link: Link::new(database), lives: HashMap::new() }
    }

    fn held(&self, token: LeaseToken) -> Option<Held> {
        self.database.leases.lock().get(&token.0).cloned()
    }

    /// Shows that this provider is alive, and takes or keeps the name of its instance. False if somebody else has it.
    fn show_life(&mut self, name: &str) -> Result<bool, BackendError> {
        let database = Arc::clone(&self.database);
        let (lease, kept) = (millis(database.lease_time), millis(database.lease_time.saturating_mul(FORGET_AFTER)));
        let units: Vec<Arc<str>> = database.served.lock().values().map(|served| served.unit.clone()).collect();
        let mut arguments: Vec<&[u8]> = [name, &database.boot, &lease, &kept].map(str::as_bytes).to_vec();
        arguments.extend(units.iter().map(|unit| unit.as_bytes()));
        Ok(number(self.link.run(&scripts::SEND_HEARTBEAT, &arguments)?)? == 1)
    }

    /// Others take over what this provider owns of a subscription, now and not when its hold ends.
    fn leave(&mut self, served: impl IntoIterator<Item = Served>) -> Result<(), BackendError> {
        if self.database.partitions > 0 {
            for it in served {
                share::leave(&self.database, &mut self.link, &it.unit)?;
            }
        }
        Ok(())
    }
}

impl Settler for RedisSettler {
    fn join(&mut self, instance_id: &str) -> Result<bool, BackendError> {
        let is_ours = self.show_life(instance_id)?;
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
        let start = match &registration.start {
            StartPosition::New => vec!["$".to_owned()],
            StartPosition::After(id) => match store::find(&mut self.link, id)? {
                Some((number, entry, _)) => places_at(&database, &mut self.link, Order::OldestFirst, number, &entry)?,
                None => {
                    let problem = format!("start: the event of {:?} is not held", registration.start);
                    return Err(BackendError::Refused(problem));
                }
            },
            StartPosition::From(time) => {
                // Whatever comes after the last one of the millisecond before.
                vec![format!("{}-{}", since_epoch(*time).as_millis().saturating_sub(1), u64::MAX)]
            }
            _ => vec!["0".to_owned()],
        };
        let info = Info {
            group: database.group.clone(),
            name: registration.name.to_string(),
            pattern: pattern.as_str().to_owned(),
            instance,
            durable: is_owned && registration.durable,
            owner,
            after: Vec::new(),
            patterns: Vec::new(),
        };
        let served = Served { unit: unit.into(), info };
        if let Some(known) = make(&mut self.link, &served, registration.change_pattern, &start)? {
            let Info { name, group, pattern, .. } = &served.info;
            return Err(BackendError::Refused(format!(
                "the subscription {name:?} of the group {group:?} has the pattern {known}, not {pattern}"
            )));
        }
        database.served.lock().insert(Arc::clone(&registration.name), served);
        Ok(())
    }

    fn unregister(&mut self, name: &str) -> Result<(), BackendError> {
        let served = self.database.served.lock().get(name).cloned();
        if let Some(served) = served.filter(|served| served.unit.ends_with(&self.database.boot)) {
            self.link.run(&scripts::REMOVE_SUBSCRIPTIONS, &[served.unit.as_bytes()])?;
        }
        let served = self.database.served.lock().remove(name);
        self.leave(served)?;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<bool, BackendError> {
        let units = [String::new(), self.database.member()].map(|owner| self.database.unit(name, &owner));
        Ok(number(self.link.run(&scripts::REMOVE_SUBSCRIPTIONS, &units.each_ref().map(String::as_bytes))?)? > 0)
    }

    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = Arc::clone(&self.database);
        let mut lost = Vec::new();
        let mut done = redis::pipe();
        let mut acknowledged: HashMap<Place, Vec<String>> = HashMap::new();
        let (mut released, mut tokens, mut units) = (vec![database.member()], Vec::new(), Vec::new());
        let held: Vec<Option<Held>> = {
            let leases = database.leases.lock();
            settlements.iter().map(|it| leases.get(&it.token.0).cloned()).collect()
        };
        for (Settlement { token, outcome, .. }, held) in settlements.iter().zip(held) {
            let Some(held) = held else {
                lost.push(*token);
                continue;
            };
            let key = database.stream_of(&held);
            match outcome {
                LeaseOutcome::Done { attempts } => {
                    self.note_done(&mut done, &held, &key, *attempts);
                    if held.number > 0 {
                        acknowledged.entry((key, held.unit)).or_default().push(held.entry);
                    }
                }
                LeaseOutcome::Dead { .. } => {
                    if !self.bury(&held, outcome)? {
                        lost.push(*token);
                    }
                }
                LeaseOutcome::Deferred { .. } => {
                    if !self.defer(&held, outcome)? {
                        lost.push(*token);
                    }
                }
                _ if held.gone => {
                    // It can't go back.
                    done.cmd("HINCRBY").arg(format!("{key}:lost")).arg("entries").arg(1).ignore();
                }
                _ => {
                    tokens.push(*token);
                    units.push(held.unit.clone());
                    released.extend([held.unit.to_string(), key, held.entry]);
                }
            }
        }
        if !done.is_empty() {
            self.link.call(|connection| done.query::<()>(connection))?;
        }
        for ((key, unit), entries) in acknowledged {
            let mut arguments = vec![unit.as_bytes()];
            arguments.extend(entries.iter().map(String::as_bytes));
            self.link.call(|connection| scripts::ACK_ENTRIES.run(connection, &[&key], &arguments))?;
        }
        if !tokens.is_empty() {
            // Before they can be claimed.
            database.released.lock().extend(units);
            let arguments: Vec<&[u8]> = released.iter().map(String::as_bytes).collect();
            let found = list(self.link.run(&scripts::RELEASE_HELD, &arguments)?)?;
            for index in found {
                lost.extend(tokens.get(number(index)? as usize));
            }
        }
        let mut leases = database.leases.lock();
        settlements.iter().for_each(|it| _ = leases.remove(&it.token.0));
        Ok(lost)
    }

    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError> {
        let Some(held) = self.held(token) else { return Ok(false) };
        if held.gone {
            return Ok(true);
        }
        let (member, key) = (self.database.member(), self.database.stream_of(&held));
        let arguments = [&*member, &held.unit, &key, &held.entry, if begun { "1" } else { "0" }].map(str::as_bytes);
        let is_held = number(self.link.run(&scripts::MARK_SUSPECT, &arguments)?)? == 1;
        if is_held
            && !begun
            && let Some(held) = self.database.leases.lock().get_mut(&token.0)
        {
            held.suspect = false;
        }
        Ok(is_held)
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.database.lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = Arc::clone(&self.database);
        let member = database.member();
        // Before it has a name, it reads as itself.
        let name = if member == database.boot { String::new() } else { member.clone() };
        let is_ours = self.show_life(&name)?;
        let mut by_stream: HashMap<Place, Vec<(LeaseToken, String)>> = HashMap::new();
        for token in tokens {
            if let Some(held) = self.held(*token).filter(|held| !held.gone) {
                by_stream.entry((database.stream_of(&held), held.unit)).or_default().push((*token, held.entry));
            }
        }
        if !is_ours {
            // Another boot has the name, and with it what was read under it.
            return Ok(by_stream.into_values().flatten().map(|(token, _)| token).collect());
        }
        let mut lost = Vec::new();
        for ((key, unit), held) in by_stream {
            // What was made again has no life of its own.
            let stream = database.streams.iter().find(|stream| **stream == key).unwrap_or(&database.streams[0]);
            let life_key = format!("{stream}:life");
            let known = match self.lives.get(stream) {
                Some(life) => life.clone(),
                None => {
                    let life: Option<String> = self.link.call(|it| redis::cmd("GET").arg(&life_key).query(it))?;
                    life.unwrap_or_default()
                }
            };
            for some in held.chunks(EXTEND) {
                let mut arguments: Vec<&[u8]> = [&*member, &unit, &life_key, &known].map(str::as_bytes).to_vec();
                arguments.extend(some.iter().map(|(_, entry)| entry.as_bytes()));
                let answer =
                    self.link.call(|connection| scripts::EXTEND_LEASES.run(connection, &[&key], &arguments))?;
                let [others, gone, life] =
                    <[Value; 3]>::try_from(list(answer)?).map_err(|it| unexpected(&Value::Array(it)))?;
                let (others, gone) = (texts(others)?, texts(gone)?);
                self.lives.insert(stream.clone(), text(life)?);
                lost.extend(some.iter().filter(|(_, entry)| others.contains(entry)).map(|(token, _)| *token));
                let mut leases = database.leases.lock();
                for (token, _) in some.iter().filter(|(_, entry)| gone.contains(entry)) {
                    leases.entry(token.0).and_modify(|held| held.gone = true);
                }
            }
        }
        Ok(lost)
    }
}

/// What only this provider has served goes with it.
impl Drop for RedisSettler {
    fn drop(&mut self) {
        let database = Arc::clone(&self.database);
        let served: Vec<Served> = database.served.lock().values().cloned().collect();
        let own = served.iter().map(|it| it.unit.as_bytes()).filter(|unit| unit.ends_with(database.boot.as_bytes()));
        let arguments: Vec<Vec<u8>> = own.map(<[u8]>::to_vec).collect();
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let name = database.member();
        let key = database.key(&format!("instance:{name}"));
        let boot = database.key(&format!("boot:{}", database.boot));
        // A server that is away forgets all this by itself.
        let told = (|| {
            if !arguments.is_empty() {
                self.link.run(&scripts::REMOVE_SUBSCRIPTIONS, &arguments)?;
            }
            self.leave(served)?;
            let holder: Option<String> = self.link.call(|it| redis::cmd("GET").arg(&key).query(it))?;
            let mut gone = redis::cmd("DEL");
            gone.arg(boot);
            if holder.as_deref() == Some(&database.boot) {
                gone.arg(&key);
            }
            self.link.call(|connection| gone.query::<()>(connection))
        })();
        if let Err(error) = told {
            tracing::debug!(%error, "the server was not told of the end");
        }
    }
}
