//! The partitions that this provider claims and owns of each subscription.
//!
//! A member renews its claims; one that is silent for a lease loses its partitions to others, and hands out nothing long before that:
//! [`LeaseTimes`] has the moments. When members join, each owner gives up its surplus: it takes no more of it, and releases a partition when none
//! of its messages is here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::LeaseToken;
use eventbroker_bridge_kit::assignment::holds_back;
use parking_lot::Mutex;

use super::assignment::{Claim, ClaimRequest, Owners};
use crate::jetstream::kv::{self, OWNERS};
use crate::jetstream::{KeyValue, Result, StoredMessage};
use crate::settings::{Hook, LeaseTimes};
use crate::subscriptions::{HeldMessage, HeldMessages};
use crate::transport::{Runtime, Session};

/// The time between two polls of the other members.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The same while a partition is to be released.
const HURRY: Duration = Duration::from_millis(50);
/// How often a record is written that other members change at the same time.
const TRIES: usize = 50;

/// The claims of this provider.
pub(crate) struct Claims {
    runtime: Arc<Runtime>,
    kv: KeyValue,
    me: String,
    times: LeaseTimes,
    partitions: u32,
    state: Mutex<ClaimsState>,
    hooks: Hooks,
}

/// The parts of the bridge that claims depend on.
pub(crate) struct Hooks {
    /// The partitions of a subscription with messages here, held or in the buffer.
    pub(crate) partitions_here: Hook<String, BTreeSet<u32>>,
    /// A posted renewal has ended.
    pub(crate) on_renewed: Hook<Result<()>>,
}

#[derive(Debug, Default)]
struct ClaimsState {
    of: HashMap<String, SubscriptionClaim>,
    polled: Option<Instant>,
    is_under_way: bool,
    /// The session in which the other members were seen. Silence between two sessions says nothing.
    generation: u64,
}

/// The claims of one subscription.
#[derive(Debug, Default)]
struct SubscriptionClaim {
    claim: Claim,
    takes_part: bool,
    /// The sequence of the record that has the claim.
    sequence: u64,
    /// The start of the last renewal.
    renewed: Option<Instant>,
    /// The heartbeats of other members, and when each was first seen.
    seen: HashMap<String, (u64, Instant)>,
    /// Since when there is a surplus.
    giving_up: Option<Instant>,
    /// Messages of the surplus are to be given back if no call has begun them. Not reported yet.
    has_to_give_back: bool,
    /// The partitions that were gained. Not reported yet.
    gained: BTreeSet<u32>,
}

/// Whether this member takes part in a subscription.
#[derive(Debug, Clone)]
pub(crate) struct Participation {
    pub(crate) durable: String,
    pub(crate) takes_part: bool,
}

impl Participation {
    /// This member takes part no more: it keeps only the partitions with messages here.
    fn none(durable: &str) -> Self {
        Self { durable: durable.to_owned(), takes_part: false }
    }
}

/// A change of a record, and the claim that it gives this member.
struct Change {
    participation: Participation,
    key: String,
    last: u64,
    owners: Owners,
    claim: Claim,
    /// Else the member was taken for dead, and has lost its partitions.
    was_known: bool,
}

impl ClaimsState {
    fn is_fresh(&self, durable: &str, times: LeaseTimes) -> bool {
        self.of.get(durable).and_then(|own| own.renewed).is_some_and(|renewed| times.is_fresh_claim(renewed))
    }

    fn next_poll(&self, times: LeaseTimes) -> Instant {
        let hurries = self.of.values().any(|own| own.giving_up.is_some() || own.is_left());
        let every = if hurries { HURRY } else { POLL_EVERY }.min(times.poll_claims_every());
        let since = if self.is_under_way { None } else { self.polled };
        since.map_or_else(|| Instant::now() + every, |polled| polled + every)
    }

    fn is_due(&self, participations: &[Participation], times: LeaseTimes) -> bool {
        let is_due = |it: &Participation| match self.of.get(&it.durable) {
            Some(own) => own.takes_part != it.takes_part || own.is_due(times),
            None => it.takes_part,
        };
        let is_late = self.polled.is_none() || Instant::now() >= self.next_poll(times);
        !self.is_under_way && (is_late || participations.iter().any(is_due))
    }

    /// Forgets when the other members were seen: they could not send heartbeats meanwhile either.
    fn see_anew(&mut self) {
        self.of.values_mut().for_each(|own| own.seen.clear());
    }
}

impl Claims {
    pub(crate) fn new(
        runtime: &Arc<Runtime>,
        kv: &KeyValue,
        me: &str,
        times: LeaseTimes,
        partitions: u32,
        hooks: Hooks,
    ) -> Self {
        let (runtime, kv, me) = (Arc::clone(runtime), kv.clone(), me.to_owned());
        Self { runtime, kv, me, times, partitions, state: Mutex::default(), hooks }
    }

    /// When the claims should be polled again.
    pub(crate) fn next_poll(&self) -> Instant {
        self.state.lock().next_poll(self.times)
    }

    /// The subscriptions with a claim, or an earlier one.
    pub(crate) fn durables(&self) -> Vec<String> {
        self.state.lock().of.keys().cloned().collect()
    }

    /// Whether the claim of a subscription was renewed within the past third of a lease time.
    pub(crate) fn is_fresh(&self, durable: &str) -> bool {
        self.state.lock().is_fresh(durable, self.times)
    }

    /// The partitions that this member may take from.
    pub(crate) fn claimable(&self, durable: &str) -> BTreeSet<u32> {
        let state = self.state.lock();
        let Some(own) = state.of.get(durable) else { return BTreeSet::new() };
        let Claim { owned, surplus } = &own.claim;
        if own.holds_back(self.times.lease) { owned - surplus } else { owned.clone() }
    }

    /// The partitions that were gained since the last call: their hand-over begins.
    pub(crate) fn take_gained(&self) -> Vec<(String, u32)> {
        let mut gained = Vec::new();
        for (durable, own) in &mut self.state.lock().of {
            gained.extend(std::mem::take(&mut own.gained).into_iter().map(|number| (durable.clone(), number)));
        }
        gained
    }

    /// The subscriptions whose held messages should be given back if no call has begun them. Each surplus is reported once.
    pub(crate) fn take_to_give_back(&self) -> Vec<String> {
        let mut state = self.state.lock();
        let of = state.of.iter_mut();
        of.filter_map(|(durable, own)| std::mem::take(&mut own.has_to_give_back).then(|| durable.clone())).collect()
    }

    /// Renews the claims if it is time, without a wait.
    pub(crate) fn poll(self: &Arc<Self>, mut participations: Vec<Participation>) {
        {
            let mut state = self.state.lock();
            // The partitions of a subscription that is no longer served are released when none of their messages is here.
            let is_served = |durable: &String| participations.iter().any(|it| it.durable == *durable);
            state.of.retain(|durable, own| !own.claim.owned.is_empty() || is_served(durable));
            let left: Vec<Participation> =
                state.of.keys().filter(|it| !is_served(it)).map(|it| Participation::none(it)).collect();
            participations.extend(left);
            if !state.is_due(&participations, self.times) {
                return;
            }
            state.is_under_way = true;
        }
        let under_way = UnderWay(Arc::clone(self), Ok(()));
        self.runtime.post(move |session| match session {
            Ok(session) => Some(Box::pin(async move {
                let result = under_way.0.renew(&session, participations).await;
                under_way.end(result);
            })),
            Err(error) => {
                under_way.end(Err(error));
                None
            }
        });
    }

    /// Renews the claims that are not fresh, and takes the lost leases: those on messages of partitions that another member has taken over are
    /// held no more. A member that stops takes part no more: it keeps only the partitions with messages here.
    pub(crate) fn renew_and_take_lost(
        self: &Arc<Self>,
        held: &HeldMessages,
        stops: bool,
        tokens: impl Iterator<Item = LeaseToken>,
    ) -> Result<Vec<LeaseToken>> {
        self.renew_stale(stops)?;
        // The claims are locked before the held messages, never after.
        let state = self.state.lock();
        let is_owned = |durable: &str, number| state.of.get(durable).is_some_and(|it| it.claim.owned.contains(&number));
        let mut held = held.lock();
        let is_lost = |it: &HeldMessage| it.consumer.partition.is_some_and(|at| !is_owned(&it.consumer.durable, at));
        let lost: Vec<LeaseToken> = tokens.filter(|it| held.get(&it.0).is_some_and(is_lost)).collect();
        lost.iter().for_each(|token| _ = held.remove(&token.0));
        Ok(lost)
    }

    /// Renews the claims that were not renewed within the past third of a lease time.
    fn renew_stale(self: &Arc<Self>, stops: bool) -> Result<()> {
        let stale: Vec<Participation> = {
            let state = self.state.lock();
            let claims = state.of.iter().filter(|(_, own)| own.takes_part || !own.claim.owned.is_empty());
            let stale = claims.filter(|(durable, _)| !state.is_fresh(durable, self.times));
            let renewed = stale.map(|(durable, own)| (durable.clone(), own.takes_part && !stops));
            renewed.map(|(durable, takes_part)| Participation { durable, takes_part }).collect()
        };
        if stale.is_empty() {
            return Ok(());
        }
        let claims = Arc::clone(self);
        self.runtime.call(move |session| async move { claims.renew(&session, stale).await })
    }

    /// Releases the partitions of subscriptions, those without messages here.
    pub(crate) fn leave(self: &Arc<Self>, durables: &[String]) -> Result<()> {
        let participations: Vec<Participation> = {
            let state = self.state.lock();
            durables.iter().filter(|it| state.of.contains_key(*it)).map(|it| Participation::none(it)).collect()
        };
        let claims = Arc::clone(self);
        let left = self.runtime.call(move |session| async move { claims.renew(&session, participations).await });
        // A partition with messages here is owned until their verdicts are sent.
        self.state.lock().of.retain(|durable, own| !durables.contains(durable) || !own.claim.owned.is_empty());
        left
    }

    /// Renews claims: reads the records, rebalances, and replaces each record if no other member has changed it meanwhile; else again.
    async fn renew(&self, session: &Session, mut participations: Vec<Participation>) -> Result<()> {
        {
            let mut state = self.state.lock();
            if state.generation != session.generation {
                state.generation = session.generation;
                state.see_anew();
            }
        }
        for _ in 0..TRIES {
            if participations.is_empty() {
                break;
            }
            let overtaken = self.try_all(session, &participations).await;
            if overtaken.is_err() {
                let mut state = self.state.lock();
                state.see_anew();
                // The record may have been written all the same.
                state.polled = None;
            }
            participations = overtaken?;
        }
        self.state.lock().polled = Some(Instant::now());
        Ok(())
    }

    /// Renews each claim. Returns those for which another member was faster.
    async fn try_all(&self, session: &Session, participations: &[Participation]) -> Result<Vec<Participation>> {
        let asked = Instant::now();
        let keys = participations.iter().map(|it| self.kv.key(OWNERS, &it.durable));
        let found = self.kv.get_all(session, keys).await?;
        let changes = self.changes(participations, found);
        let records = changes.iter().map(|it| (it.key.clone(), it.last, kv::write(&it.owners))).collect();
        let sequences = self.kv.replace_all(session, records).await?;
        let mut overtaken = Vec::new();
        let mut state = self.state.lock();
        for (change, sequence) in changes.into_iter().zip(sequences) {
            match (state.of.get_mut(&change.participation.durable), sequence) {
                (Some(own), Some(sequence)) if sequence > own.sequence => {
                    own.sequence = sequence;
                    own.record(change.claim, change.was_known, asked, self.times.lease);
                }
                (_, Some(_)) => {}
                (_, None) => overtaken.push(change.participation),
            }
        }
        Ok(overtaken)
    }

    /// The changes of the records that are due.
    fn changes(&self, participations: &[Participation], found: Vec<Option<StoredMessage>>) -> Vec<Change> {
        let (mut state, times, me) = (self.state.lock(), self.times, &self.me);
        let mut changes = Vec::new();
        for (participation, found) in participations.iter().zip(found) {
            let Participation { durable, takes_part } = participation;
            let last = found.as_ref().map_or(0, |entry| entry.sequence);
            let before: Owners = found.as_ref().and_then(kv::read).unwrap_or_default();
            let own = state.of.entry(durable.clone()).or_default();
            own.takes_part = *takes_part;
            let mut owners = before.clone();
            let claim = owners.rebalance(&ClaimRequest {
                me,
                lease: times.lease,
                takes_part: *takes_part,
                here: &(self.hooks.partitions_here)(durable.clone()),
                dead: &own.dead(&before, me),
                partitions: self.partitions,
            });
            let was_known = before.members.contains_key(me);
            let is_due = own.is_due(times) && (*takes_part || was_known);
            // Members have come or gone: this one acts on the claim that it has recorded.
            let is_new = claim != own.claim;
            if is_due || is_new || !owners.differs_in_heartbeats_only(&before, me) {
                let (key, participation) = (self.kv.key(OWNERS, durable), participation.clone());
                changes.push(Change { participation, key, last, owners, claim, was_known });
            }
        }
        changes
    }
}

/// A posted renewal, and its result. Its drop clears the flag, also when the task is cancelled.
struct UnderWay(Arc<Claims>, Result<()>);

impl UnderWay {
    fn end(mut self, result: Result<()>) {
        self.1 = result;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state.lock().is_under_way = false;
        (self.0.hooks.on_renewed)(std::mem::replace(&mut self.1, Ok(())));
    }
}

impl SubscriptionClaim {
    /// Takes part no more, and still owns partitions.
    fn is_left(&self) -> bool {
        !self.takes_part && !self.claim.owned.is_empty()
    }

    /// Whether it is time for a renewal.
    fn is_due(&self, times: LeaseTimes) -> bool {
        self.renewed.is_none_or(|renewed| renewed.elapsed() >= times.renew_claims_every())
    }

    /// The other members without a heartbeat for their lease.
    fn dead(&mut self, owners: &Owners, me: &str) -> BTreeSet<String> {
        // Read after the answer: not before the others have written their heartbeats.
        let now = Instant::now();
        self.seen.retain(|member, _| owners.members.contains_key(member));
        let mut dead = BTreeSet::new();
        for (name, member) in owners.members.iter().filter(|(name, _)| *name != me) {
            let seen = self.seen.entry(name.clone()).or_insert((member.heartbeats, now));
            if seen.0 != member.heartbeats {
                *seen = (member.heartbeats, now);
            }
            if now - seen.1 >= Duration::from_millis(member.lease) {
                dead.insert(name.clone());
            }
        }
        dead
    }

    /// The claim is recorded.
    fn record(&mut self, claim: Claim, was_known: bool, asked: Instant, lease: Duration) {
        let had = if was_known { std::mem::take(&mut self.claim.owned) } else { BTreeSet::new() };
        self.gained.extend(&claim.owned - &had);
        let since = (!claim.surplus.is_empty()).then(|| self.giving_up.unwrap_or(asked));
        let held_back = self.giving_up.is_some() && self.holds_back(lease);
        (self.claim, self.renewed, self.giving_up) = (claim, Some(asked), since);
        self.has_to_give_back |= self.holds_back(lease) && !held_back;
    }

    /// Whether the member takes nothing of its surplus at the moment.
    fn holds_back(&self, lease: Duration) -> bool {
        self.giving_up.is_some_and(|since| holds_back(since.elapsed(), lease))
    }
}
