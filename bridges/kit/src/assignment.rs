//! The assignment of partitions to members: plain data in and out. Each member computes its own part from the same data. Members may see
//! different data for a moment, so the back end lets a member acquire only a partition that no member owns.

use std::collections::{BTreeMap, BTreeSet};

/// The changes that bring one member to its share.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes<P> {
    /// Free partitions to acquire.
    pub acquire: Vec<P>,
    /// Own partitions to release now.
    pub release: Vec<P>,
    /// Own partitions to release as soon as the member has none of their deliveries in its hands.
    pub drain: BTreeSet<P>,
}

/// The changes for one member. `sharing` is the members that want a share, `owners` the owner of each partition that has one, and
/// `is_idle` whether the member has nothing of a partition in its hands.
///
/// The lowest free partitions are acquired, the lowest idle ones are released, and the highest busy ones are drained.
pub fn rebalance<'a, P: Copy + Ord>(
    member: &str,
    sharing: impl Iterator<Item = &'a str>,
    partitions: impl Iterator<Item = P> + Clone,
    owners: &BTreeMap<P, String>,
    is_idle: impl Fn(P) -> bool,
) -> Changes<P> {
    let (share, owned) = (share_of(member, &sharing.collect(), partitions.clone().count()), owned_by(owners, member));
    let surplus = owned.len().saturating_sub(share);
    let release: Vec<P> = owned.iter().copied().filter(|it| is_idle(*it)).take(surplus).collect();
    let busy = owned.iter().copied().filter(|it| !release.contains(it));
    let drain = busy.rev().take(surplus - release.len()).collect();
    let free = partitions.filter(|it| !owners.contains_key(it));
    Changes { acquire: free.take(share.saturating_sub(owned.len())).collect(), release, drain }
}

/// The partitions of one member.
pub fn owned_by<P: Copy + Ord>(owners: &BTreeMap<P, String>, member: &str) -> BTreeSet<P> {
    owners.iter().filter(|(_, owner)| *owner == member).map(|(partition, _)| *partition).collect()
}

/// The number of partitions of one member: shares differ by at most one, and the first members in the order of their names have the larger
/// ones.
fn share_of(member: &str, sharing: &BTreeSet<&str>, partitions: usize) -> usize {
    let rank = sharing.iter().position(|it| *it == member);
    rank.map_or(0, |rank| partitions / sharing.len() + usize::from(rank < partitions % sharing.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Owners = BTreeMap<usize, String>;

    fn owners(owners: &[(usize, &str)]) -> Owners {
        owners.iter().map(|(partition, owner)| (*partition, (*owner).to_owned())).collect()
    }

    fn changes(acquire: &[usize], release: &[usize], drain: &[usize]) -> Changes<usize> {
        Changes { acquire: acquire.to_vec(), release: release.to_vec(), drain: drain.iter().copied().collect() }
    }

    /// The changes for a member among the members `sharing`, of the partitions from 1 on.
    fn ask(
        member: &str,
        sharing: &[&str],
        partitions: usize,
        owners: &Owners,
        is_idle: impl Fn(usize) -> bool,
    ) -> Changes<usize> {
        rebalance(member, sharing.iter().copied(), 1..=partitions, owners, is_idle)
    }

    fn apply(owners: &mut Owners, member: &str, changes: Changes<usize>) {
        changes.release.iter().for_each(|partition| _ = owners.remove(partition));
        for partition in changes.acquire {
            assert_eq!(owners.insert(partition, member.to_owned()), None, "{partition} had an owner");
        }
    }

    #[test]
    fn the_only_member_acquires_every_free_partition() {
        assert_eq!(ask("a", &["a"], 3, &owners(&[]), |_| true), changes(&[1, 2, 3], &[], &[]));
        assert_eq!(ask("a", &["a"], 3, &owners(&[(2, "gone")]), |_| true), changes(&[1, 3], &[], &[]));
    }

    #[test]
    fn shares_differ_by_at_most_one() {
        for (partitions, members) in [(7, 3), (2, 3), (64, 5), (1, 1)] {
            let names: Vec<String> = (0..members).map(|it| format!("m{it}")).collect();
            let sharing: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            let shares: Vec<usize> = names.iter().map(|name| share_of(name, &sharing, partitions)).collect();
            assert_eq!(shares.iter().sum::<usize>(), partitions);
            assert!(shares.iter().max().expect("one") - shares.iter().min().expect("one") <= 1, "{shares:?}");
        }
    }

    #[test]
    fn a_surplus_is_released_where_idle_and_drained_where_busy() {
        let (owners, sharing) = (owners(&[(1, "a"), (2, "a"), (3, "a"), (4, "a")]), ["a", "b"]);
        assert_eq!(ask("a", &sharing, 4, &owners, |_| true), changes(&[], &[1, 2], &[]));
        assert_eq!(ask("a", &sharing, 4, &owners, |partition| partition == 3), changes(&[], &[3], &[4]));
        assert_eq!(ask("a", &sharing, 4, &owners, |_| false), changes(&[], &[], &[3, 4]));
        assert_eq!(ask("b", &sharing, 4, &owners, |_| true), changes(&[], &[], &[]), "nothing is free");
    }

    #[test]
    fn a_balanced_assignment_does_not_change() {
        let owners = owners(&[(1, "b"), (2, "a"), (3, "a")]);
        assert_eq!(ask("a", &["a", "b"], 3, &owners, |_| true), Changes::default());
        assert_eq!(ask("b", &["a", "b"], 3, &owners, |_| true), Changes::default());
    }

    #[test]
    fn a_member_that_has_left_keeps_only_busy_partitions() {
        let owners = owners(&[(1, "a"), (2, "a")]);
        assert_eq!(ask("a", &["b"], 2, &owners, |partition| partition == 1), changes(&[], &[1], &[2]));
    }

    #[test]
    fn partitions_may_count_from_zero() {
        assert_eq!(rebalance("a", ["a"].into_iter(), 0..3_u32, &BTreeMap::new(), |_| true).acquire, [0, 1, 2]);
    }

    /// From any assignment, members that act in turn reach a full one in which no member has too many, and then change nothing. No partition
    /// gets a second owner on the way.
    #[test]
    fn members_that_act_in_turn_reach_balance() {
        let sharing = ["a", "b", "c"];
        // Each partition begins with one of the members, without an owner, or with a member that has left.
        for start in 0..5_usize.pow(5) {
            let of = |partition: u32| ["a", "b", "c", "left", ""][start / 5_usize.pow(partition - 1) % 5];
            let first: Vec<(usize, &str)> =
                (1..=5).map(|it| (it as usize, of(it))).filter(|(_, of)| !of.is_empty()).collect();
            let mut owners = owners(&first);
            for member in ["left", "c", "a", "b", "c", "a", "b"] {
                let changes = ask(member, &sharing, 5, &owners, |_| true);
                apply(&mut owners, member, changes);
            }
            assert_eq!(sharing.map(|member| owned_by(&owners, member).len()), [2, 2, 1], "from {first:?}");
            for member in sharing {
                assert_eq!(ask(member, &sharing, 5, &owners, |_| true), Changes::default(), "from {first:?}");
            }
        }
    }
}
