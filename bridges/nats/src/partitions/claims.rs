//! The partitions that this provider claims and owns of each subscription.
//!
//! A member renews its claims six times per lease. Each member judges expiry by its own monotonic clock, so no clocks are compared: a member takes
//! over after one silent lease; an owner hands out nothing without a renewal in the last third of a lease, and begins no call two thirds of a
//! lease after the last extension. When members join, each owner gives up its surplus: it takes no more of it, and releases a partition when none
//! of its messages is in hand.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::LeaseToken;
use parking_lot::Mutex;

use super::assignment::{Claim, ClaimRequest, Owners};
use crate::jetstream::kv::{self, OWNERS};
use crate::jetstream::{KeyValue, Result, StoredMessage};
use crate::settings::Hook;
use crate::subscriptions::{HeldMessage, HeldMessages};
use crate::transport::{Runtime, Session};

/// If messages of the surplus are still in hand after a lease, since a retry waits long for example, the member takes more of it for this number of
/// leases, so that the messages behind do not stand still, and then tries again.
const GO_ON: u32 = 3;
/// The time between two looks at the other members.
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
    lease: Duration,
    partitions: u32,
    state: Mutex<State>,
    hooks: Hooks,
}

/// The parts of the bridge that claims depend on.
pub(crate) struct Hooks {
    /// The partitions of a subscription with messages in hand.
    pub(crate) in_hand: Hook<String, BTreeSet<u32>>,
    /// A posted renewal has ended.
    pub(crate) on_renewed: Hook<Result<()>>,
}

#[derive(Debug, Default)]
struct State {
    of: HashMap<String, Share>,
    polled: Option<Instant>,
    is_under_way: bool,
    /// The session in which the other members were seen. Silence between two sessions says nothing.
    generation: u64,
}

/// The claims of one subscription.
#[derive(Debug, Default)]
struct Share {
    claim: Claim,
    takes_part: bool,
    /// The number of the record that has the claim.
    number: u64,
    /// The start of the last renewal.
    renewed: Option<Instant>,
    /// The heartbeats of other members, and when each was first seen.
    seen: HashMap<String, (u64, Instant)>,
    /// Since when there is a surplus.
    giving_up: Option<Instant>,
    /// Messages of the surplus that no call has begun are to be given back.
    wants_back: bool,
    /// The partitions that were gained since the last look.
    gained: BTreeSet<u32>,
}

/// The durable name of a subscription, and whether this member takes part in it.
pub(crate) type Wanted = (String, bool);

/// A change of a record, and the claim that it gives this member.
struct Change {
    wanted: Wanted,
    key: String,
    last: u64,
    owners: Owners,
    claim: Claim,
    /// Else the member was taken for dead, and has lost its partitions.
    was_known: bool,
}

impl State {
    fn is_fresh(&self, durable: &str, lease: Duration) -> bool {
        self.of.get(durable).and_then(|share| share.renewed).is_some_and(|renewed| renewed.elapsed() < lease / 3)
    }

    fn next_poll(&self, lease: Duration) -> Instant {
        let hurries = self.of.values().any(|share| share.giving_up.is_some() || share.is_left());
        let every = if hurries { HURRY } else { POLL_EVERY }.min(lease / 8);
        let since = if self.is_under_way { None } else { self.polled };
        since.map_or_else(|| Instant::now() + every, |polled| polled + every)
    }

    fn is_due(&self, wanted: &[Wanted], lease: Duration) -> bool {
        let is_due = |(durable, takes_part): &Wanted| match self.of.get(durable) {
            Some(share) => share.takes_part != *takes_part || share.is_due(lease),
            None => *takes_part,
        };
        let is_late = self.polled.is_none() || Instant::now() >= self.next_poll(lease);
        !self.is_under_way && (is_late || wanted.iter().any(is_due))
    }

    /// Forgets when the other members were seen: they could not send heartbeats meanwhile either.
    fn see_anew(&mut self) {
        self.of.values_mut().for_each(|share| share.seen.clear());
    }
}

impl Claims {
    pub(crate) fn new(
        runtime: &Arc<Runtime>,
        kv: &KeyValue,
        me: &str,
        lease: Duration,
        partitions: u32,
        hooks: Hooks,
    ) -> Self {
        let (runtime, kv, me) = (Arc::clone(runtime), kv.clone(), me.to_owned());
        Self { runtime, kv, me, lease, partitions, state: Mutex::default(), hooks }
    }

    /// When the claims should be polled again.
    pub(crate) fn next_poll(&self) -> Instant {
        self.state.lock().next_poll(self.lease)
    }

    /// The subscriptions with a claim, or an earlier one.
    pub(crate) fn durables(&self) -> Vec<String> {
        self.state.lock().of.keys().cloned().collect()
    }

    /// Whether the claim of a subscription was renewed in the last third of a lease.
    pub(crate) fn is_fresh(&self, durable: &str) -> bool {
        self.state.lock().is_fresh(durable, self.lease)
    }

    /// The partitions that this member may take from.
    pub(crate) fn claimable(&self, durable: &str) -> BTreeSet<u32> {
        let state = self.state.lock();
        let Some(share) = state.of.get(durable) else { return BTreeSet::new() };
        let Claim { owned, surplus } = &share.claim;
        if share.holds_back(self.lease) { owned - surplus } else { owned.clone() }
    }

    /// The partitions that were gained since the last call: their hand-over begins.
    pub(crate) fn gained(&self) -> Vec<(String, u32)> {
        let mut gained = Vec::new();
        for (durable, share) in &mut self.state.lock().of {
            gained.extend(std::mem::take(&mut share.gained).into_iter().map(|number| (durable.clone(), number)));
        }
        gained
    }

    /// The subscriptions whose messages in hand should be given back if no call has begun them. Each surplus is reported once.
    pub(crate) fn wanted_back(&self) -> Vec<String> {
        let mut state = self.state.lock();
        let wants =
            |(durable, share): (&String, &mut Share)| std::mem::take(&mut share.wants_back).then(|| durable.clone());
        state.of.iter_mut().filter_map(wants).collect()
    }

    /// Renews the claims if it is time, without a wait.
    pub(crate) fn poll(self: &Arc<Self>, mut wanted: Vec<Wanted>) {
        {
            let mut state = self.state.lock();
            // The partitions of a subscription that is no longer served are released when none of their messages is in hand.
            let is_served = |durable: &String| wanted.iter().any(|(served, _)| served == durable);
            state.of.retain(|durable, share| !share.claim.owned.is_empty() || is_served(durable));
            let left: Vec<Wanted> =
                state.of.keys().filter(|it| !is_served(it)).map(|durable| (durable.clone(), false)).collect();
            wanted.extend(left);
            if !state.is_due(&wanted, self.lease) {
                return;
            }
            state.is_under_way = true;
        }
        let under_way = UnderWay(Arc::clone(self), Ok(()));
        self.runtime.post(move |session| match session {
            Ok(session) => Some(Box::pin(async move {
                let result = under_way.0.ask(&session, wanted).await;
                under_way.end(result);
            })),
            Err(error) => {
                under_way.end(Err(error));
                None
            }
        });
    }

    /// The lost leases: those on messages of partitions that another member has taken over. Removes these messages from the ones in hand. A member
    /// that stops takes part no more: it keeps only the partitions with messages in hand.
    pub(crate) fn lost_leases(
        self: &Arc<Self>,
        held: &HeldMessages,
        stops: bool,
        tokens: impl Iterator<Item = LeaseToken>,
    ) -> Result<Vec<LeaseToken>> {
        self.renew_stale(stops)?;
        // The claims are locked before the messages in hand, never after.
        let state = self.state.lock();
        let is_owned = |durable: &str, number| state.of.get(durable).is_some_and(|it| it.claim.owned.contains(&number));
        let mut held = held.lock();
        let is_lost = |it: &HeldMessage| it.consumer.partition.is_some_and(|at| !is_owned(&it.consumer.durable, at));
        let lost: Vec<LeaseToken> = tokens.filter(|it| held.get(&it.0).is_some_and(is_lost)).collect();
        lost.iter().for_each(|token| _ = held.remove(&token.0));
        Ok(lost)
    }

    /// Renews the claims that should have been renewed in the last third of a lease.
    fn renew_stale(self: &Arc<Self>, stops: bool) -> Result<()> {
        let stale: Vec<Wanted> = {
            let state = self.state.lock();
            let claims = state.of.iter().filter(|(_, share)| share.takes_part || !share.claim.owned.is_empty());
            let stale = claims.filter(|(durable, _)| !state.is_fresh(durable, self.lease));
            stale.map(|(durable, share)| (durable.clone(), share.takes_part && !stops)).collect()
        };
        if stale.is_empty() {
            return Ok(());
        }
        let claims = Arc::clone(self);
        self.runtime.call(move |session| async move { claims.ask(&session, stale).await })
    }

    /// Releases the partitions of subscriptions, those without messages in hand.
    pub(crate) fn leave(self: &Arc<Self>, durables: &[String]) -> Result<()> {
        let wanted: Vec<Wanted> = {
            let state = self.state.lock();
            durables.iter().filter(|it| state.of.contains_key(*it)).map(|it| (it.clone(), false)).collect()
        };
        let claims = Arc::clone(self);
        let left = self.runtime.call(move |session| async move { claims.ask(&session, wanted).await });
        // A partition with messages in hand is owned until their verdicts are sent.
        self.state.lock().of.retain(|durable, share| !durables.contains(durable) || !share.claim.owned.is_empty());
        left
    }

    async fn ask(&self, session: &Session, mut wanted: Vec<Wanted>) -> Result<()> {
        {
            let mut state = self.state.lock();
            if state.generation != session.generation {
                state.generation = session.generation;
                state.see_anew();
            }
        }
        for _ in 0..TRIES {
            if wanted.is_empty() {
                break;
            }
            let overtaken = self.try_all(session, &wanted).await;
            if overtaken.is_err() {
                let mut state = self.state.lock();
                state.see_anew();
                // The record may have been written all the same.
                state.polled = None;
            }
            wanted = overtaken?;
        }
        self.state.lock().polled = Some(Instant::now());
        Ok(())
    }

    /// Renews each claim. Returns those for which another member was faster.
    async fn try_all(&self, session: &Session, wanted: &[Wanted]) -> Result<Vec<Wanted>> {
        let asked = Instant::now();
        let keys = wanted.iter().map(|(durable, _)| self.kv.key(OWNERS, durable));
        let found = self.kv.get_all(session, keys).await?;
        let changes = self.changes(wanted, found);
        let records = changes.iter().map(|it| (it.key.clone(), it.last, kv::write(&it.owners))).collect();
        let numbers = self.kv.replace_all(session, records).await?;
        let mut overtaken = Vec::new();
        let mut state = self.state.lock();
        for (change, number) in changes.into_iter().zip(numbers) {
            match (state.of.get_mut(&change.wanted.0), number) {
                (Some(share), Some(number)) if number > share.number => {
                    share.number = number;
                    share.take(change.claim, change.was_known, asked, self.lease);
                }
                (_, Some(_)) => {}
                (_, None) => overtaken.push(change.wanted),
            }
        }
        Ok(overtaken)
    }

    /// The changes of the records that are due.
    fn changes(&self, wanted: &[Wanted], found: Vec<Option<StoredMessage>>) -> Vec<Change> {
        let (mut state, lease, me) = (self.state.lock(), self.lease, &self.me);
        let mut changes = Vec::new();
        for ((durable, takes_part), found) in wanted.iter().zip(found) {
            let last = found.as_ref().map_or(0, |entry| entry.sequence);
            let before: Owners = found.as_ref().and_then(kv::read).unwrap_or_default();
            let share = state.of.entry(durable.clone()).or_default();
            share.takes_part = *takes_part;
            let mut owners = before.clone();
            let claim = owners.rebalance(&ClaimRequest {
                me,
                lease,
                takes_part: *takes_part,
                in_hand: &(self.hooks.in_hand)(durable.clone()),
                dead: &share.dead(&before, me),
                partitions: self.partitions,
            });
            let was_known = before.members.contains_key(me);
            let is_due = share.is_due(lease) && (*takes_part || was_known);
            // Members have come or gone: this one acts on the claim that it has recorded.
            let is_new = claim != share.claim;
            if is_due || is_new || !owners.differs_in_heartbeats_only(&before, me) {
                let (key, wanted) = (self.kv.key(OWNERS, durable), (durable.clone(), *takes_part));
                changes.push(Change { wanted, key, last, owners, claim, was_known });
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

impl Share {
    /// Takes part no more, and still owns partitions.
    fn is_left(&self) -> bool {
        !self.takes_part && !self.claim.owned.is_empty()
    }

    /// Whether it is time for a renewal: early enough to hand out messages after it.
    fn is_due(&self, lease: Duration) -> bool {
        self.renewed.is_none_or(|renewed| renewed.elapsed() >= lease / 6)
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
    fn take(&mut self, claim: Claim, was_known: bool, asked: Instant, lease: Duration) {
        let had = if was_known { std::mem::take(&mut self.claim.owned) } else { BTreeSet::new() };
        self.gained.extend(&claim.owned - &had);
        let since = (!claim.surplus.is_empty()).then(|| self.giving_up.unwrap_or(asked));
        let held_back = self.giving_up.is_some() && self.holds_back(lease);
        (self.claim, self.renewed, self.giving_up) = (claim, Some(asked), since);
        self.wants_back |= self.holds_back(lease) && !held_back;
    }

    /// Whether the member takes nothing of its surplus at the moment.
    fn holds_back(&self, lease: Duration) -> bool {
        let round = (lease * (1 + GO_ON)).as_nanos().max(1);
        self.giving_up.is_some_and(|since| since.elapsed().as_nanos() % round < lease.as_nanos())
    }
}
