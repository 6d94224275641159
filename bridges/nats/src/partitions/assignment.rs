//! Which member of a subscription owns which partition: a record that every member changes for itself, if no other member has changed it
//! meanwhile. The [claims](super::claims) decide when a member asks for its share, and act on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eventbroker_bridge_kit::assignment::{owned_by, rebalance};
use serde::{Deserialize, Serialize};

/// The record of a subscription's members and owners.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Owners {
    /// By boot id.
    pub(crate) members: BTreeMap<String, Member>,
    /// The owner of each partition that has one.
    pub(crate) owners: BTreeMap<u32, String>,
}

/// A member in the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    /// The number of its heartbeats. A member whose number does not change for its lease is dead.
    #[serde(rename = "signs")]
    pub(crate) heartbeats: u64,
    /// Its lease in milliseconds.
    pub(crate) lease: u64,
    /// It wants a share. Else it keeps only the partitions that it cannot release yet.
    pub(crate) takes_part: bool,
}

/// The request of a member.
pub(crate) struct ClaimRequest<'a> {
    pub(crate) me: &'a str,
    pub(crate) lease: Duration,
    pub(crate) takes_part: bool,
    /// The partitions with messages here, which it cannot release.
    pub(crate) here: &'a BTreeSet<u32>,
    /// The members without a heartbeat for their lease.
    pub(crate) dead: &'a BTreeSet<String>,
    pub(crate) partitions: u32,
}

/// The partitions of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) owned: BTreeSet<u32>,
    /// The owned ones that are to go to other members.
    pub(crate) surplus: BTreeSet<u32>,
}

impl Owners {
    /// Gives a member its share of the partitions: it releases those above its share, and takes those without an owner. Others keep theirs, so
    /// the shares are even when every member has asked.
    pub(crate) fn rebalance(&mut self, request: &ClaimRequest<'_>) -> Claim {
        let ClaimRequest { me, lease, takes_part, here, dead, partitions } = *request;
        self.members.retain(|member, _| !dead.contains(member));
        self.owners.retain(|number, owner| self.members.contains_key(owner) && *number < partitions);
        let mine = self.members.entry(me.to_owned()).or_default();
        let (heartbeats, lease) = (mine.heartbeats + 1, lease.as_millis().try_into().unwrap_or(u64::MAX));
        *mine = Member { heartbeats, lease, takes_part };
        let sharing = self.members.iter().filter(|(_, member)| member.takes_part).map(|(member, _)| &**member);
        let changes = rebalance(me, sharing, 0..partitions, &self.owners, |number| !here.contains(&number));
        self.owners.retain(|number, _| !changes.release.contains(number));
        self.owners.extend(changes.acquire.into_iter().map(|number| (number, me.to_owned())));
        let owned = owned_by(&self.owners, me);
        if owned.is_empty() && !takes_part {
            self.members.remove(me);
        }
        Claim { owned, surplus: changes.surplus }
    }

    /// Whether two records differ in nothing but the heartbeats of one member.
    pub(crate) fn differs_in_heartbeats_only(&self, other: &Self, me: &str) -> bool {
        let mut same = other.clone();
        match (same.members.get_mut(me), self.members.get(me)) {
            (Some(other), Some(own)) => other.heartbeats = own.heartbeats,
            (None, None) => {}
            _ => return false,
        }
        *self == same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(1);
    const NONE: [u32; 0] = [];

    fn ask(owners: &mut Owners, me: &str, takes_part: bool, here: &[u32], dead: &[&str]) -> (Vec<u32>, Vec<u32>) {
        let here = here.iter().copied().collect();
        let dead = dead.iter().map(|it| (*it).to_owned()).collect();
        let request = ClaimRequest { me, lease: LEASE, takes_part, here: &here, dead: &dead, partitions: 5 };
        let Claim { owned, surplus } = owners.rebalance(&request);
        (owned.into_iter().collect(), surplus.into_iter().collect())
    }

    #[test]
    fn shares_are_even_and_no_partition_has_two_owners() {
        let mut owners = Owners::default();
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [0, 1, 2, 3, 4]);
        assert_eq!(ask(&mut owners, "b", true, &[], &[]).0, NONE, "no partition is free");
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [2, 3, 4]);
        assert_eq!(ask(&mut owners, "b", true, &[], &[]).0, [0, 1]);
        assert_eq!(ask(&mut owners, "c", true, &[], &[]).0, NONE);
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [3, 4]);
        assert_eq!(ask(&mut owners, "c", true, &[], &[]).0, [2]);
    }

    #[test]
    fn a_partition_with_messages_here_is_kept() {
        let mut owners = Owners::default();
        ask(&mut owners, "a", true, &[], &[]);
        ask(&mut owners, "b", true, &[], &[]);
        assert_eq!(ask(&mut owners, "a", true, &[0, 1, 2, 3, 4], &[]), (vec![0, 1, 2, 3, 4], vec![3, 4]));
        assert_eq!(ask(&mut owners, "b", true, &[], &[]).0, NONE);
        assert_eq!(ask(&mut owners, "a", true, &[0, 1, 2], &[]).0, [0, 1, 2]);
        assert_eq!(ask(&mut owners, "b", true, &[], &[]).0, [3, 4]);
    }

    #[test]
    fn partitions_of_dead_and_leaving_members_are_free() {
        let mut owners = Owners::default();
        ask(&mut owners, "a", true, &[], &[]);
        ask(&mut owners, "b", true, &[], &[]);
        assert_eq!(ask(&mut owners, "b", true, &[], &["a"]).0, [0, 1, 2, 3, 4]);
        assert_eq!(
            ask(&mut owners, "a", true, &[], &[]).0,
            NONE,
            "it was taken for dead, and its partitions have an owner"
        );
        assert_eq!(
            ask(&mut owners, "b", false, &[2], &[]),
            (vec![2], vec![2]),
            "it leaves, and keeps the partition with a message"
        );
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [0, 1, 3, 4]);
        assert_eq!(ask(&mut owners, "b", false, &[], &[]).0, NONE);
        assert_eq!(owners.members.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_record_has_its_stored_form() {
        let member = Member { heartbeats: 7, lease: 30_000, takes_part: true };
        let owners = Owners { members: [("a".to_owned(), member)].into(), owners: [(3, "a".to_owned())].into() };
        let stored = r#"{"members":{"a":{"signs":7,"lease":30000,"takes_part":true}},"owners":{"3":"a"}}"#;
        assert_eq!(serde_json::to_string(&owners).expect("it is JSON"), stored);
        assert_eq!(serde_json::from_str::<Owners>(stored).expect("it is a record"), owners);
    }
}
