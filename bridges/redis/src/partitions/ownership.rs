//! The partitions that this provider owns of a subscription. It renews its hold four times per lease. When members join, an owner with too
//! many partitions claims no more from some of them, and releases each as soon as it has none of its deliveries in hand.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;

use super::assignment::{Changes, Holds};
use crate::membership::Member;
use crate::scripts::{HOLD_PARTITIONS, Layout, fixed, flag, list, millis, number, text, texts};
use crate::subscriptions::HeldDeliveries;
use crate::transport::Link;

/// A partition that is still busy after it was drained for a lease, because of long retries for example, is claimed from again for this
/// many leases before the next try: its backlog must not stand still.
const RESUME: u32 = 3;
/// The most rounds of changes: another member may acquire a partition first.
const ROUNDS: usize = 3;

#[derive(Debug)]
pub(crate) struct Ownership {
    layout: Arc<Layout>,
    member: Arc<Member>,
    held: Arc<HeldDeliveries>,
    lease_time: Duration,
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
    pub(crate) fn new(
        layout: &Arc<Layout>,
        member: &Arc<Member>,
        held: &Arc<HeldDeliveries>,
        lease_time: Duration,
        xgroup: &Arc<str>,
    ) -> Self {
        Self {
            layout: Arc::clone(layout),
            member: Arc::clone(member),
            held: Arc::clone(held),
            lease_time,
            xgroup: Arc::clone(xgroup),
            owned: BTreeSet::new(),
            claimable: Vec::new(),
            has_grown: false,
            renewed: None,
            draining_since: None,
            wants_back: false,
        }
    }

    /// Renews at the next call: another member has released something.
    pub(crate) fn renew_soon(&mut self) {
        self.renewed = None;
    }

    /// The partitions to claim from. With `others_return`, because the server was away, expired holds of others count.
    pub(crate) fn claimable(&mut self, link: &mut Link, others_return: bool) -> Result<&[usize], BackendError> {
        let is_due = self.renewed.is_none_or(|renewed| renewed.elapsed() >= self.lease_time / 4);
        if is_due || self.draining_since.is_some() {
            let now = Instant::now();
            let in_hand = self.held.streams(&self.xgroup);
            let (mut holds, mut changes) = (self.hold(link, others_return, &Changes::default())?, Changes::default());
            for _ in 0..ROUNDS {
                changes = holds.rebalance(&self.member.boot, |partition| !in_hand.contains(&partition));
                if changes.acquire.is_empty() && changes.release.is_empty() {
                    break;
                }
                holds = self.hold(link, others_return, &changes)?;
            }
            let owned = holds.owned_by(&self.member.boot);
            self.has_grown |= !owned.is_subset(&self.owned);
            let since = (!changes.drain.is_empty()).then(|| self.draining_since.unwrap_or(now));
            let round = self.lease_time * (1 + RESUME);
            let drains =
                since.is_some_and(|since| since.elapsed().as_nanos() % round.as_nanos() < self.lease_time.as_nanos());
            self.wants_back |= drains && self.draining_since.is_none_or(|it| it != since.unwrap_or(now));
            let claimable = owned.iter().copied().filter(|it| !drains || !changes.drain.contains(it));
            self.claimable = claimable.collect();
            (self.owned, self.draining_since, self.renewed) = (owned, since, Some(now));
        }
        Ok(&self.claimable)
    }

    fn hold(&self, link: &mut Link, others_return: bool, changes: &Changes) -> Result<Holds, BackendError> {
        hold(&self.layout, link, &self.member, self.lease_time, &self.xgroup, true, others_return, changes)
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
    pub(crate) fn leave(&mut self, link: &mut Link) -> Result<(), BackendError> {
        if self.renewed.take().is_some() {
            leave(&self.layout, link, &self.member, &self.held, self.lease_time, &self.xgroup)?;
            self.owned.clear();
        }
        Ok(())
    }
}

/// Leaves the members of a subscription, and releases the partitions of which nothing is in hand.
pub(crate) fn leave(
    layout: &Layout,
    link: &mut Link,
    member: &Member,
    held: &HeldDeliveries,
    lease_time: Duration,
    xgroup: &str,
) -> Result<(), BackendError> {
    let in_hand = held.streams(xgroup);
    let idle = (1..=layout.streams.len()).filter(|number| !in_hand.contains(number));
    let changes = Changes { release: idle.collect(), ..Changes::default() };
    hold(layout, link, member, lease_time, xgroup, false, false, &changes).map(drop)
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the script")]
fn hold(
    layout: &Layout,
    link: &mut Link,
    member: &Member,
    lease_time: Duration,
    xgroup: &str,
    takes_part: bool,
    others_return: bool,
    changes: &Changes,
) -> Result<Holds, BackendError> {
    let acquire = changes.acquire.iter().map(usize::to_string);
    let changes: Vec<String> = acquire.chain(changes.release.iter().map(|number| format!("-{number}"))).collect();
    let lease = millis(lease_time);
    let mut arguments = vec![xgroup, &member.boot, &lease, flag(takes_part), flag(others_return)];
    arguments.extend(changes.iter().map(String::as_str));
    let [members, held] = fixed(layout.run(link, &HOLD_PARTITIONS, &arguments)?)?;
    let mut holds = Holds { partitions: layout.streams.len(), members: texts(members)?, owners: BTreeMap::new() };
    let mut held = list(held)?.into_iter();
    while let (Some(partition), Some(owner)) = (held.next(), held.next()) {
        holds.owners.insert(number(partition)?.try_into().unwrap_or(0), text(owner)?);
    }
    Ok(holds)
}
