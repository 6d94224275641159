//! Who owns which partition of a subscription: a note that every member changes for itself, if nobody has changed it meanwhile. How the
//! partitions are shared out is decided here; when it is asked, and what a member does with its share, is in [`shares`](crate::partitions::claims).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The members of a subscription, and what each owns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Owners {
    /// By what tells providers from each other.
    pub(crate) members: BTreeMap<String, Member>,
    /// The owner of each partition that has one.
    pub(crate) owners: BTreeMap<u32, String>,
}

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    /// How often it has shown that it lives. It is taken for dead when this does not change for its lease.
    pub(crate) signs: u64,
    /// So long it is taken to live, in milliseconds.
    pub(crate) lease: u64,
    /// It wants a share. Else it keeps only what it cannot let go yet.
    pub(crate) takes_part: bool,
}

/// What a member wants.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) me: &'a str,
    pub(crate) lease: Duration,
    pub(crate) takes_part: bool,
    /// The partitions that it has something of in its hands: it can't let them go.
    pub(crate) in_hand: &'a BTreeSet<u32>,
    /// Those who have shown no sign of life for their lease.
    pub(crate) dead: &'a BTreeSet<String>,
    pub(crate) partitions: u32,
}

/// What it gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Portion {
    /// The partitions that it owns.
    pub(crate) owned: BTreeSet<u32>,
    /// Those of them that others should have.
    pub(crate) surplus: BTreeSet<u32>,
}

impl Owners {
    /// Gives a member its share, and lets go what is more than that. What others own stays theirs, and what nobody owns is taken: so each gets
    /// an even share as soon as the others have asked for theirs.
    pub(crate) fn share_out(&mut self, wish: &Wish<'_>) -> Portion {
        let Wish { me, lease, takes_part, in_hand, dead, partitions } = *wish;
        self.members.retain(|member, _| !dead.contains(member));
        self.owners.retain(|number, owner| self.members.contains_key(owner) && *number < partitions);
        let mine = self.members.entry(me.to_owned()).or_default();
        *mine = Member { signs: mine.signs + 1, lease: lease.as_millis().try_into().unwrap_or(u64::MAX), takes_part };
        let share = self.share_of(me, partitions);
        let mut owned: BTreeSet<u32> =
            self.owners.iter().filter(|(_, owner)| *owner == me).map(|(number, _)| *number).collect();
        for number in owned.clone() {
            if owned.len() > share && !in_hand.contains(&number) {
                owned.remove(&number);
                self.owners.remove(&number);
            }
        }
        for number in 0..partitions {
            if owned.len() < share && !self.owners.contains_key(&number) {
                owned.insert(number);
                self.owners.insert(number, me.to_owned());
            }
        }
        if owned.is_empty() && !takes_part {
            self.members.remove(me);
        }
        // Those with the highest numbers go first.
        let surplus = owned.iter().rev().take(owned.len().saturating_sub(share)).copied().collect();
        Portion { owned, surplus }
    }

    /// How many partitions a member should have.
    fn share_of(&self, me: &str, partitions: u32) -> usize {
        let sharing = self.members.iter().filter(|(_, member)| member.takes_part).map(|(member, _)| member);
        let sharing: Vec<&String> = sharing.collect();
        let (partitions, count) = (partitions as usize, sharing.len());
        let rank = sharing.iter().position(|member| *member == me);
        rank.map_or(0, |rank| partitions / count + usize::from(rank < partitions % count))
    }

    /// Whether the same is said but for the signs of life of one member.
    pub(crate) fn is_same_but_for_signs(&self, other: &Self, me: &str) -> bool {
        let mut same = other.clone();
        match (same.members.get_mut(me), self.members.get(me)) {
            (Some(other), Some(own)) => other.signs = own.signs,
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

    fn ask(owners: &mut Owners, me: &str, takes_part: bool, in_hand: &[u32], dead: &[&str]) -> (Vec<u32>, Vec<u32>) {
        let in_hand = in_hand.iter().copied().collect();
        let dead = dead.iter().map(|it| (*it).to_owned()).collect();
        let wish = Wish { me, lease: LEASE, takes_part, in_hand: &in_hand, dead: &dead, partitions: 5 };
        let Portion { owned, surplus } = owners.share_out(&wish);
        (owned.into_iter().collect(), surplus.into_iter().collect())
    }

    #[test]
    fn each_has_an_even_share_and_no_partition_has_two_owners() {
        let mut owners = Owners::default();
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [0, 1, 2, 3, 4]);
        assert_eq!(ask(&mut owners, "b", true, &[], &[]).0, NONE, "nothing is free");
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [2, 3, 4]);
        assert_eq!(ask(&mut owners, "b", true, &[], &[]).0, [0, 1]);
        assert_eq!(ask(&mut owners, "c", true, &[], &[]).0, NONE);
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [3, 4]);
        assert_eq!(ask(&mut owners, "c", true, &[], &[]).0, [2]);
    }

    #[test]
    fn what_is_in_hand_is_kept_until_it_is_not() {
        let mut owners = Owners::default();
        ask(&mut owners, "a", true, &[], &[]);
        ask(&mut owners, "b", true, &[], &[]);
        assert_eq!(ask(&mut owners, "a", true, &[0, 1, 2, 3, 4], &[]), (vec![0, 1, 2, 3, 4], vec![3, 4]));
        assert_eq!(ask(&mut owners, "b", true, &[], &[]).0, NONE);
        assert_eq!(ask(&mut owners, "a", true, &[0, 1, 2], &[]).0, [0, 1, 2]);
        assert_eq!(ask(&mut owners, "b", true, &[], &[]).0, [3, 4]);
    }

    #[test]
    fn what_the_dead_and_those_who_leave_had_is_free() {
        let mut owners = Owners::default();
        ask(&mut owners, "a", true, &[], &[]);
        ask(&mut owners, "b", true, &[], &[]);
        assert_eq!(ask(&mut owners, "b", true, &[], &["a"]).0, [0, 1, 2, 3, 4]);
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, NONE, "it was taken for dead");
        assert_eq!(ask(&mut owners, "b", false, &[2], &[]), (vec![2], vec![2]), "it leaves, but for what is in hand");
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [0, 1, 3, 4]);
        assert_eq!(ask(&mut owners, "b", false, &[], &[]).0, NONE);
        assert_eq!(owners.members.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(ask(&mut owners, "a", true, &[], &[]).0, [0, 1, 2, 3, 4]);
    }
}
