//! The assignment of partitions to members: plain data in and out. Each member computes its own part from the same data. Members may see
//! different data for a moment, so the server lets a member acquire only a partition that nobody holds.

use std::collections::{BTreeMap, BTreeSet};

/// The members of a subscription, and the owners of its partitions, which count from 1.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    pub(crate) partitions: usize,
    pub(crate) members: Vec<String>,
    /// The owner of each partition that is held.
    pub(crate) owners: BTreeMap<usize, String>,
}

/// The changes that bring one member to its quota.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Free partitions to acquire.
    pub(crate) acquire: Vec<usize>,
    /// Own partitions to release now.
    pub(crate) release: Vec<usize>,
    /// Own partitions to release as soon as the member has none of their deliveries in its hands.
    pub(crate) drain: BTreeSet<usize>,
}

impl Holds {
    /// The partitions of one member.
    pub(crate) fn owned_by(&self, member: &str) -> BTreeSet<usize> {
        self.owners.iter().filter(|(_, owner)| *owner == member).map(|(partition, _)| *partition).collect()
    }

    /// The number of partitions of one member: shares differ by at most one, and the first members in the order of their names have the
    /// larger ones.
    fn quota(&self, member: &str) -> usize {
        let rank = self.members.iter().filter(|other| ***other < *member).count();
        if !self.members.iter().any(|it| it == member) {
            return 0;
        }
        self.partitions / self.members.len() + usize::from(rank < self.partitions % self.members.len())
    }

    /// The changes for one member. `is_idle` is whether it has nothing of a partition in its hands.
    pub(crate) fn rebalance(&self, member: &str, is_idle: impl Fn(usize) -> bool) -> Changes {
        let (quota, owned) = (self.quota(member), self.owned_by(member));
        let surplus = owned.len().saturating_sub(quota);
        let release: Vec<usize> = owned.iter().copied().filter(|it| is_idle(*it)).take(surplus).collect();
        let busy = owned.iter().copied().filter(|it| !release.contains(it));
        let drain = busy.rev().take(surplus - release.len()).collect();
        let free = (1..=self.partitions).filter(|it| !self.owners.contains_key(it));
        Changes { acquire: free.take(quota.saturating_sub(owned.len())).collect(), release, drain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(partitions: usize, members: &[&str], owners: &[(usize, &str)]) -> Holds {
        let owners = owners.iter().map(|(partition, owner)| (*partition, (*owner).to_owned())).collect();
        Holds { partitions, members: members.iter().map(|it| (*it).to_owned()).collect(), owners }
    }

    fn changes(acquire: &[usize], release: &[usize], drain: &[usize]) -> Changes {
        Changes { acquire: acquire.to_vec(), release: release.to_vec(), drain: drain.iter().copied().collect() }
    }

    #[test]
    fn the_only_member_acquires_every_free_partition() {
        assert_eq!(holds(3, &["a"], &[]).rebalance("a", |_| true), changes(&[1, 2, 3], &[], &[]));
        assert_eq!(holds(3, &["a"], &[(2, "gone")]).rebalance("a", |_| true), changes(&[1, 3], &[], &[]));
    }

    #[test]
    fn shares_differ_by_at_most_one() {
        for (partitions, members) in [(7, 3), (2, 3), (64, 5), (1, 1)] {
            let names: Vec<String> = (0..members).map(|it| format!("m{it}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let it = holds(partitions, &names, &[]);
            let quotas: Vec<usize> = names.iter().map(|name| it.quota(name)).collect();
            assert_eq!(quotas.iter().sum::<usize>(), partitions);
            assert!(quotas.iter().max().expect("one") - quotas.iter().min().expect("one") <= 1, "{quotas:?}");
        }
    }

    #[test]
    fn a_surplus_is_released_where_idle_and_drained_where_busy() {
        let it = holds(4, &["a", "b"], &[(1, "a"), (2, "a"), (3, "a"), (4, "a")]);
        assert_eq!(it.rebalance("a", |_| true), changes(&[], &[1, 2], &[]));
        assert_eq!(it.rebalance("a", |partition| partition == 3), changes(&[], &[3], &[4]));
        assert_eq!(it.rebalance("a", |_| false), changes(&[], &[], &[3, 4]));
        assert_eq!(it.rebalance("b", |_| true), changes(&[], &[], &[]), "nothing is free");
    }

    #[test]
    fn a_balanced_assignment_does_not_change() {
        let it = holds(3, &["a", "b"], &[(1, "b"), (2, "a"), (3, "a")]);
        assert_eq!(it.rebalance("a", |_| true), Changes::default());
        assert_eq!(it.rebalance("b", |_| true), Changes::default());
    }

    #[test]
    fn a_member_that_has_left_keeps_only_busy_partitions() {
        let it = holds(2, &["b"], &[(1, "a"), (2, "a")]);
        assert_eq!(it.rebalance("a", |partition| partition == 1), changes(&[], &[1], &[2]));
    }

    /// From any assignment, members that act in turn reach a full one in which no member has too many.
    #[test]
    fn members_that_act_in_turn_reach_balance() {
        let mut it = holds(7, &["a", "b", "c"], &[(1, "gone"), (2, "a"), (3, "a"), (4, "a"), (5, "a"), (6, "b")]);
        // The hold of a member that is gone expires.
        it.owners.remove(&1);
        for _ in 0..2 {
            for member in ["c", "a", "b"] {
                let changes = it.rebalance(member, |_| true);
                changes.release.iter().for_each(|partition| _ = it.owners.remove(partition));
                it.owners.extend(changes.acquire.into_iter().map(|partition| (partition, member.to_owned())));
            }
        }
        assert_eq!(["a", "b", "c"].map(|member| it.owned_by(member).len()), [3, 2, 2]);
    }
}
