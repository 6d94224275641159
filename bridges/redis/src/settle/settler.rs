//! Registrations, verdicts and extensions of leases. A member has lost a delivery when XPENDING names another consumer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::{BackendError, LeaseOutcome, LeaseToken, Registration, Settlement, Settler};
use eventbroker::{Pattern, Scope};

use super::outcome::{add_dead_letter, defer_retry, record_done};
use crate::partitions::Sharing;
use crate::scripts::{Client, EXTEND_LEASES, MARK_SUSPECT, RELEASE_HELD, REMOVE_SUBSCRIPTIONS, flag};
use crate::settings::Redis;
use crate::subscriptions::{
    HeldDelivery, LocalSubscription, LocalSubscriptions, SubscriptionRecord, register, start_entries, xgroup_name,
};

/// Leases that one script extends.
const EXTEND: usize = 1_000;

/// A stream, and the consumer group of a subscription.
type Place = (String, Arc<str>);

pub(crate) struct RedisSettler {
    settings: Arc<Redis>,
    sharing: Sharing,
    local: Arc<LocalSubscriptions>,
    client: Client,
    /// The life of each stream as of the last extension. A stream that is made again after its removal has another life.
    lives: HashMap<String, String>,
}

impl RedisSettler {
    pub(crate) fn new(settings: Arc<Redis>, sharing: Sharing, local: Arc<LocalSubscriptions>, client: Client) -> Self {
        Self { settings, sharing, local, client, lives: HashMap::new() }
    }

    fn stream_of(&self, held: &HeldDelivery) -> String {
        self.client.layout.delivery_stream(&held.xgroup, held.number)
    }

    fn leave_partitions(&mut self, xgroup: &str) -> Result<(), BackendError> {
        if self.client.layout.partitions == 0 { Ok(()) } else { self.sharing.leave(&mut self.client, xgroup) }
    }

    /// The name of the subscription that a delivery is of.
    fn name_of(&self, held: &HeldDelivery) -> String {
        self.local.all().into_iter().find(|it| it.xgroup == held.xgroup).map(|it| it.record.name).unwrap_or_default()
    }

    /// The life of a stream as of the last extension; before the first one, as of now.
    fn last_life(&mut self, stream: &str, life_key: &str) -> Result<String, BackendError> {
        if let Some(life) = self.lives.get(stream) {
            return Ok(life.clone());
        }
        let life: Option<String> = self.client.query(redis::cmd("GET").arg(life_key))?;
        Ok(life.unwrap_or_default())
    }
}

impl Settler for RedisSettler {
    fn join(&mut self, instance_id: &str) -> Result<bool, BackendError> {
        self.sharing.membership.join(&mut self.client, instance_id)
    }

    fn register(&mut self, registration: &Registration) -> Result<(), BackendError> {
        let pattern =
            Pattern::parse(&registration.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
        let is_broadcast = registration.scope == Scope::Broadcast;
        let instance = if is_broadcast { self.sharing.membership.name() } else { String::new() };
        let owner =
            if is_broadcast && !registration.durable { self.sharing.membership.boot.clone() } else { String::new() };
        let group = &self.settings.consumer_group;
        let xgroup = xgroup_name(group, &registration.name, if owner.is_empty() { &instance } else { &owner });
        let start = start_entries(&mut self.client, &registration.start)?;
        let record = SubscriptionRecord {
            group: group.clone(),
            name: registration.name.to_string(),
            pattern: pattern.as_str().to_owned(),
            instance,
            durable: is_broadcast && registration.durable,
            owner,
            after: Vec::new(),
            patterns: Vec::new(),
        };
        let subscription = LocalSubscription { xgroup: xgroup.into(), record };
        let known = register(&mut self.client, &subscription, registration.change_pattern, &start)?;
        if let Some(known) = known {
            let SubscriptionRecord { name, group, pattern, .. } = &subscription.record;
            return Err(BackendError::Refused(format!(
                "the subscription {name:?} of the group {group:?} has the pattern {known}, not {pattern}"
            )));
        }
        self.local.insert(&registration.name, subscription);
        Ok(())
    }

    fn unregister(&mut self, name: &str) -> Result<(), BackendError> {
        let Some(subscription) = self.local.get(name) else { return Ok(()) };
        if !subscription.record.owner.is_empty() {
            self.client.run::<()>(&REMOVE_SUBSCRIPTIONS, &[&*subscription.xgroup])?;
        }
        self.local.remove(name);
        self.leave_partitions(&subscription.xgroup)
    }

    fn remove(&mut self, name: &str) -> Result<bool, BackendError> {
        let group = &self.settings.consumer_group;
        let xgroups = [String::new(), self.sharing.membership.name()].map(|owner| xgroup_name(group, name, &owner));
        Ok(self.client.run::<u64>(&REMOVE_SUBSCRIPTIONS, &xgroups)? > 0)
    }

    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>, BackendError> {
        let member = self.sharing.membership.name();
        let (mut lost, mut commands) = (Vec::new(), redis::pipe());
        let mut acknowledged: HashMap<Place, Vec<String>> = HashMap::new();
        let (mut released, mut tokens, mut xgroups) = (vec![member.clone()], Vec::new(), Vec::new());
        let held = self.sharing.held.get_all(settlements.iter().map(|it| it.token));
        for (Settlement { token, outcome, .. }, held) in settlements.iter().zip(held) {
            let Some(held) = held else {
                lost.push(*token);
                continue;
            };
            let stream = self.stream_of(&held);
            let is_ours = match outcome {
                LeaseOutcome::Done { attempts } => {
                    record_done(&self.settings, &self.client.layout, &mut commands, &held, &stream, *attempts);
                    if held.number > 0 {
                        acknowledged.entry((stream, held.xgroup)).or_default().push(held.entry);
                    }
                    true
                }
                LeaseOutcome::Dead { .. } => {
                    let name = self.name_of(&held);
                    add_dead_letter(&self.settings, &mut self.client, &member, &name, &held, outcome)?
                }
                LeaseOutcome::Deferred { .. } => {
                    defer_retry(&self.settings, &mut self.client, &member, &held, outcome)?
                }
                // Its entry is gone: no member can claim it.
                _ if held.is_removed => {
                    commands.cmd("HINCRBY").arg(format!("{stream}:lost")).arg("entries").arg(1).ignore();
                    true
                }
                _ => {
                    tokens.push(*token);
                    xgroups.push(Arc::clone(&held.xgroup));
                    released.extend([held.xgroup.to_string(), stream, held.entry]);
                    true
                }
            };
            if !is_ours {
                lost.push(*token);
            }
        }
        for ((stream, xgroup), entries) in acknowledged {
            commands.cmd("XACK").arg(stream).arg(&*xgroup).arg(entries).ignore();
        }
        self.client.send(&commands)?;
        if !tokens.is_empty() {
            // Before they can be claimed.
            self.sharing.held.note_released(xgroups);
            let others: Vec<usize> = self.client.run(&RELEASE_HELD, &released)?;
            lost.extend(others.into_iter().filter_map(|index| tokens.get(index)));
        }
        self.sharing.held.remove_all(settlements.iter().map(|it| it.token));
        Ok(lost)
    }

    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError> {
        let Some(held) = self.sharing.held.get(token) else { return Ok(false) };
        if held.is_removed {
            return Ok(true);
        }
        let (member, stream) = (self.sharing.membership.name(), self.stream_of(&held));
        let arguments = [&*member, &held.xgroup, &stream, &held.entry, flag(begun)];
        let is_held = self.client.run(&MARK_SUSPECT, &arguments)?;
        if is_held && !begun {
            self.sharing.held.clear_suspect(token);
        }
        Ok(is_held)
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.settings.lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        let member = self.sharing.membership.name();
        let is_ours = self.sharing.membership.renew(&mut self.client, &self.local.xgroups())?;
        let mut by_place: HashMap<Place, Vec<(LeaseToken, String)>> = HashMap::new();
        for token in tokens {
            if let Some(held) = self.sharing.held.get(*token).filter(|held| !held.is_removed) {
                by_place.entry((self.stream_of(&held), held.xgroup)).or_default().push((*token, held.entry));
            }
        }
        if !is_ours {
            // Another provider has the name, and with it every delivery that was claimed under it.
            return Ok(by_place.into_values().flatten().map(|(token, _)| token).collect());
        }
        let layout = Arc::clone(&self.client.layout);
        let mut lost = Vec::new();
        for ((stream, xgroup), held) in by_place {
            // A redelivery stream has the life of the first main stream.
            let main = layout.streams.iter().find(|it| **it == stream).unwrap_or(&layout.streams[0]);
            let life_key = format!("{main}:life");
            let last_life = self.last_life(main, &life_key)?;
            for some in held.chunks(EXTEND) {
                let mut arguments = vec![&*member, &xgroup, &life_key, &last_life];
                arguments.extend(some.iter().map(|(_, entry)| entry.as_str()));
                let (others, removed, life) = self.client.run_on(&EXTEND_LEASES, &[&stream], &arguments)?;
                self.lives.insert(main.clone(), life);
                let among = |entries: Vec<String>| {
                    some.iter().filter(move |(_, entry)| entries.contains(entry)).map(|(token, _)| *token)
                };
                lost.extend(among(others));
                self.sharing.held.mark_removed(among(removed));
            }
        }
        Ok(lost)
    }
}

/// Subscriptions that belong to this provider end with it.
impl Drop for RedisSettler {
    fn drop(&mut self) {
        let all = self.local.all();
        let own: Vec<&str> = all.iter().filter(|it| !it.record.owner.is_empty()).map(|it| &*it.xgroup).collect();
        let left = (|| {
            if !own.is_empty() {
                self.client.run::<()>(&REMOVE_SUBSCRIPTIONS, &own)?;
            }
            for it in &all {
                self.leave_partitions(&it.xgroup)?;
            }
            self.sharing.membership.leave(&mut self.client)
        })();
        if let Err(error) = left {
            tracing::debug!(%error, "the server was not told that the provider ends; its keys expire");
        }
    }
}
