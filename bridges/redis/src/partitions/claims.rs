//! The partitions that this provider claims and owns of a subscription.
//!
//! A member renews its claims four times per lease. When members join, each owner gives up its surplus: it takes no more of it, and releases a
//! partition as soon as none of its deliveries is in hand.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use eventbroker::provider::BackendError;
use eventbroker_bridge_kit::assignment::{Changes, holds_back, owned_by, rebalance};

use crate::membership::Membership;
use crate::scripts::{Client, HOLD_PARTITIONS, flag, millis};
use crate::subscriptions::HeldDeliveries;

/// The most rounds of changes: another member may acquire a partition first.
const ROUNDS: usize = 3;

/// This provider as a member that shares partitions: the parts that the claims of all subscriptions have in common.
#[derive(Clone)]
pub(crate) struct Sharing {
    pub(crate) membership: Arc<Membership>,
    pub(crate) held: Arc<HeldDeliveries>,
}

/// The members of a subscription, and the owner of each partition that has one. Partitions count from 1.
type Owners = (Vec<String>, BTreeMap<usize, String>);

/// Whether this member takes part in a subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Participation {
    Leaves,
    TakesPart,
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
        self.hold(client, xgroup, Participation::Leaves, &changes).map(drop)
    }

    fn hold(
        &self,
        client: &mut Client,
        xgroup: &str,
        participation: Participation,
        changes: &Changes<usize>,
    ) -> Result<Owners, BackendError> {
        let acquire = changes.acquire.iter().map(usize::to_string);
        let changes: Vec<String> = acquire.chain(changes.release.iter().map(|number| format!("-{number}"))).collect();
        let (takes_part, waits) =
            (participation != Participation::Leaves, participation == Participation::WaitsForOthers);
        let (boot, lease) = (&self.membership.boot, millis(self.membership.lease_time));
        let mut arguments = vec![xgroup, boot, &lease, flag(takes_part), flag(waits)];
        arguments.extend(changes.iter().map(String::as_str));
        client.run(&HOLD_PARTITIONS, &arguments)
    }
}

/// The claims of one subscription.
pub(crate) struct Claims {
    sharing: Sharing,
    xgroup: Arc<str>,
    owned: BTreeSet<usize>,
    /// `owned`, without the surplus while the member holds back.
    claimable: Vec<usize>,
    /// A partition was gained. Not reported yet.
    has_gained: bool,
    /// The last renewal.
    renewed: Option<Instant>,
    /// Since when there is a surplus.
    giving_up: Option<Instant>,
    /// Deliveries are to be given back if no call has begun them, because they keep the surplus busy. Not reported yet.
    has_to_give_back: bool,
}

impl Claims {
    pub(crate) fn new(sharing: Sharing, xgroup: Arc<str>) -> Self {
        let (owned, claimable) = (BTreeSet::new(), Vec::new());
        let (has_gained, has_to_give_back, renewed, giving_up) = (false, false, None, None);
        Self { sharing, xgroup, owned, claimable, has_gained, renewed, giving_up, has_to_give_back }
    }

    /// Renews at the next call: another member has released something.
    pub(crate) fn renew_soon(&mut self) {
        self.renewed = None;
    }

    /// The partitions to claim from. With `others_return`, because the server was away, expired holds of others count.
    pub(crate) fn claimable(&mut self, client: &mut Client, others_return: bool) -> Result<&[usize], BackendError> {
        let Sharing { membership, held } = &self.sharing;
        let lease_time = membership.lease_time;
        let is_due = self.renewed.is_none_or(|renewed| renewed.elapsed() >= lease_time / 4);
        if is_due || self.giving_up.is_some() {
            let (now, in_hand) = (Instant::now(), held.streams(&self.xgroup));
            let participation = if others_return { Participation::WaitsForOthers } else { Participation::TakesPart };
            let mut changes = Changes::default();
            let (mut members, mut owners) = self.sharing.hold(client, &self.xgroup, participation, &changes)?;
            for _ in 0..ROUNDS {
                let (sharing, partitions) = (members.iter().map(String::as_str), 1..=client.layout.streams.len());
                let is_idle = |partition: usize| !in_hand.contains(&partition);
                changes = rebalance(&membership.boot, sharing, partitions, &owners, is_idle);
                if changes.acquire.is_empty() && changes.release.is_empty() {
                    break;
                }
                (members, owners) = self.sharing.hold(client, &self.xgroup, participation, &changes)?;
            }
            let owned = owned_by(&owners, &membership.boot);
            self.has_gained |= !owned.is_subset(&self.owned);
            let giving_up = (!changes.surplus.is_empty()).then(|| self.giving_up.unwrap_or(now));
            let holds_back = giving_up.is_some_and(|since| holds_back(since.elapsed(), lease_time));
            self.has_to_give_back |= holds_back && self.giving_up.is_none();
            let claimable = owned.iter().copied().filter(|it| !holds_back || !changes.surplus.contains(it));
            self.claimable = claimable.collect();
            (self.owned, self.giving_up, self.renewed) = (owned, giving_up, Some(now));
        }
        Ok(&self.claimable)
    }

    /// Whether the member has gained a partition since the last call. The pending deliveries of its earlier owner go first.
    pub(crate) fn take_has_gained(&mut self) -> bool {
        mem::take(&mut self.has_gained)
    }

    /// Whether deliveries should be given back if no call has begun them. Each surplus is reported once.
    pub(crate) fn take_has_to_give_back(&mut self) -> bool {
        mem::take(&mut self.has_to_give_back)
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
