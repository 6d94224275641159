//! The assignment of partitions to members: plain data in and out. Each member computes its own part from the same data. Members may see
//! different data for a moment, so the back end lets a member acquire only a partition that no member owns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An owner takes nothing of its surplus for one lease, so that it can release it. If deliveries are still in its hands then, because a retry
/// waits long for example, it takes of the surplus for this number of leases, so that the deliveries behind do not stand still; then it begins
/// again.
const GO_ON: u32 = 3;

/// The changes that bring one member to its share.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes<P> {
    /// Free partitions to acquire.
    pub acquire: Vec<P>,
    /// Own partitions to release now.
    pub release: Vec<P>,
    /// Own partitions to release as soon as the member has none of their deliveries in its hands.
    pub surplus: BTreeSet<P>,
}

/// The changes for one member. `sharing` is the members that want a share, `owners` the owner of each partition that has one, and
/// `is_idle` whether the member has nothing of a partition in its hands.
///
/// The lowest free partitions are acquired, the lowest idle ones are released, and the highest busy ones are the surplus.
pub fn rebalance<'a, P: Copy + Ord>(
    member: &str,
    sharing: impl Iterator<Item = &'a str>,
    partitions: impl Iterator<Item = P> + Clone,
    owners: &BTreeMap<P, String>,
    is_idle: impl Fn(P) -> bool,
) -> Changes<P> {
    let (share, owned) = (share_of(member, &sharing.collect(), partitions.clone().count()), owned_by(owners, member));
    let too_many = owned.len().saturating_sub(share);
    let release: Vec<P> = owned.iter().copied().filter(|it| is_idle(*it)).take(too_many).collect();
    let busy = owned.iter().copied().filter(|it| !release.contains(it));
    let surplus = busy.rev().take(too_many - release.len()).collect();
    let free = partitions.filter(|it| !owners.contains_key(it));
    Changes { acquire: free.take(share.saturating_sub(owned.len())).collect(), release, surplus }
}

/// Whether an owner takes nothing of its surplus at the moment. `giving_up` is the time for which it has had a surplus.
pub fn holds_back(giving_up: Duration, lease: Duration) -> bool {
    let round = (lease * (1 + GO_ON)).as_nanos().max(1);
    giving_up.as_nanos() % round < lease.as_nanos()
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

    fn changes(acquire: &[usize], release: &[usize], surplus: &[usize]) -> Changes<usize> {
        Changes { acquire: acquire.to_vec(), release: release.to_vec(), surplus: surplus.iter().copied().collect() }
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
    fn idle_partitions_above_the_share_are_released_and_busy_ones_are_the_surplus() {
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
    fn an_owner_holds_back_for_one_lease_of_four() {
        let lease = Duration::from_secs(1);
        let held_back = |quarters: u32| holds_back(lease * quarters / 4, lease);
        let quarters: Vec<u32> = (0..40).filter(|it| held_back(*it)).collect();
        assert_eq!(quarters, [0, 1, 2, 3, 16, 17, 18, 19, 32, 33, 34, 35]);
        assert!(!holds_back(lease, Duration::ZERO), "without a lease nothing is held back");
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
