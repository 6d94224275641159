//! The partitions that this provider owns of a subscription. It renews its hold four times per lease. When members join, an owner with too
//! many partitions claims no more from some of them, and releases each as soon as it has none of its deliveries in hand.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use eventbroker::provider::BackendError;
use eventbroker_bridge_kit::assignment::{Changes, owned_by, rebalance};

use crate::membership::Member;
use crate::scripts::{Client, HOLD_PARTITIONS, flag, millis};
use crate::subscriptions::HeldDeliveries;

/// A partition that is still busy after it was drained for a lease, because of long retries for example, is claimed from again for this
/// many leases before the next try: its backlog must not stand still.
const RESUME: u32 = 3;
/// The most rounds of changes: another member may acquire a partition first.
const ROUNDS: usize = 3;

/// This provider as a member that shares partitions.
#[derive(Clone)]
pub(crate) struct Sharing {
    pub(crate) member: Arc<Member>,
    pub(crate) held: Arc<HeldDeliveries>,
}

/// The members of a subscription, and the owner of each partition that is held. Partitions count from 1.
type Holds = (Vec<String>, BTreeMap<usize, String>);

/// How a member takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Leaves,
    Shares,
    /// The server was away: the holds of others count, even if they have expired.
    WaitsForOthers,
}

impl Sharing {
    /// Leaves the members of a subscription, and releases the partitions of which nothing is in hand: others acquire them at once, not
    /// when the hold expires.
    pub(crate) fn leave(&self, client: &mut Client, xgroup: &str) -> Result<(), BackendError> {
        let in_hand = self.held.streams(xgroup);
        let idle = (1..=client.layout.streams.len()).filter(|number| !in_hand.contains(number));
        let changes = Changes { release: idle.collect(), ..Changes::default() };
        self.hold(client, xgroup, Part::Leaves, &changes).map(drop)
    }

    fn hold(
        &self,
        client: &mut Client,
        xgroup: &str,
        part: Part,
        changes: &Changes<usize>,
    ) -> Result<Holds, BackendError> {
        let acquire = changes.acquire.iter().map(usize::to_string);
        let changes: Vec<String> = acquire.chain(changes.release.iter().map(|number| format!("-{number}"))).collect();
        let (lease, waits) = (millis(self.member.lease_time), flag(part == Part::WaitsForOthers));
        let mut arguments = vec![xgroup, &self.member.boot, &lease, flag(part != Part::Leaves), waits];
        arguments.extend(changes.iter().map(String::as_str));
        client.run(&HOLD_PARTITIONS, &arguments)
    }
}

pub(crate) struct Ownership {
    sharing: Sharing,
    xgroup: Arc<str>,
    owned: BTreeSet<usize>,
    /// The part of `owned` that is not drained.
    claimable: Vec<usize>,
    has_grown: bool,
    renewed: Option<Instant>,
    draining_since: Option<Instant>,
    wants_back: bool,
}

impl Ownership {
    pub(crate) fn new(sharing: Sharing, xgroup: Arc<str>) -> Self {
        let (owned, claimable) = (BTreeSet::new(), Vec::new());
        let (has_grown, wants_back, renewed, draining_since) = (false, false, None, None);
        Self { sharing, xgroup, owned, claimable, has_grown, renewed, draining_since, wants_back }
    }

    /// Renews at the next call: another member has released something.
    pub(crate) fn renew_soon(&mut self) {
        self.renewed = None;
    }

    /// The partitions to claim from. With `others_return`, because the server was away, expired holds of others count.
    pub(crate) fn claimable(&mut self, client: &mut Client, others_return: bool) -> Result<&[usize], BackendError> {
        let Sharing { member, held } = &self.sharing;
        let lease_time = member.lease_time;
        let is_due = self.renewed.is_none_or(|renewed| renewed.elapsed() >= lease_time / 4);
        if is_due || self.draining_since.is_some() {
            let (now, in_hand) = (Instant::now(), held.streams(&self.xgroup));
            let part = if others_return { Part::WaitsForOthers } else { Part::Shares };
            let mut changes = Changes::default();
            let (mut members, mut owners) = self.sharing.hold(client, &self.xgroup, part, &changes)?;
            for _ in 0..ROUNDS {
                let (sharing, partitions) = (members.iter().map(String::as_str), 1..=client.layout.streams.len());
                let is_idle = |partition: usize| !in_hand.contains(&partition);
                changes = rebalance(&member.boot, sharing, partitions, &owners, is_idle);
                if changes.acquire.is_empty() && changes.release.is_empty() {
                    break;
                }
                (members, owners) = self.sharing.hold(client, &self.xgroup, part, &changes)?;
            }
            let owned = owned_by(&owners, &member.boot);
            self.has_grown |= !owned.is_subset(&self.owned);
            let since = (!changes.drain.is_empty()).then(|| self.draining_since.unwrap_or(now));
            let (lease, round) = (lease_time.as_nanos(), (lease_time * (1 + RESUME)).as_nanos());
            let drains = since.is_some_and(|since| since.elapsed().as_nanos() % round < lease);
            self.wants_back |= drains && self.draining_since.is_none_or(|it| it != since.unwrap_or(now));
            let claimable = owned.iter().copied().filter(|it| !drains || !changes.drain.contains(it));
            self.claimable = claimable.collect();
            (self.owned, self.draining_since, self.renewed) = (owned, since, Some(now));
        }
        Ok(&self.claimable)
    }

    /// Whether the member has acquired a partition since the last call. The pending deliveries of its earlier owner go first.
    pub(crate) fn take_has_grown(&mut self) -> bool {
        mem::take(&mut self.has_grown)
    }

    /// Whether deliveries that have not begun should be released, because they keep a partition busy. True once for each try to drain.
    pub(crate) fn take_wants_back(&mut self) -> bool {
        mem::take(&mut self.wants_back)
    }

    /// Leaves the members, for now.
    pub(crate) fn leave(&mut self, client: &mut Client) -> Result<(), BackendError> {
        if self.renewed.take().is_some() {
            self.sharing.leave(client, &self.xgroup)?;
            self.owned.clear();
        }
        Ok(())
    }
}
