//! Which consumers the ingest may take from. Without partitions that is all; with them, those of the partitions that this provider owns, those of an
//! earlier pattern before the present one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Demand};

use crate::consume::pull_state::{Source, Unwanted};
use crate::jetstream::consumer::progress;
use crate::partitions::claims as shares;
use crate::provider::backend::{Database, Served};
use crate::subscriptions::Leg;

/// Deliveries of a partition that are handed out at a time: who takes over has to begin with all of them.
const DEPTH: usize = 256;
/// How soon it looks again whether an earlier pattern has come to its end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The partitions that it may take from, by subscription.
    claimable: HashMap<String, BTreeSet<u32>>,
    /// Consumers of earlier patterns of which nothing is left.
    ended: HashSet<Arc<str>>,
    looked: Option<Instant>,
    /// What has come of partitions that were in other hands since.
    unwanted: Vec<Unwanted>,
    /// Each of them is the first in turn.
    turn: usize,
}

impl Turns {
    /// Asks whose the partitions are, if it is time to.
    pub(crate) fn see_to(&mut self, database: &Arc<Database>, demand: &[Demand]) -> Result<(), BackendError> {
        if database.partitions() == 0 {
            return Ok(());
        }
        let served: Vec<(Arc<str>, Served)> =
            database.served.lock().iter().map(|(name, it)| (Arc::clone(name), it.clone())).collect();
        // Who is paused and has nothing in hand takes no part: others do without it.
        let takes_part = |name: &Arc<str>, unit: &str| {
            demand.iter().any(|demand| demand.subscription == *name) || !database.partitions_in_hand(unit).is_empty()
        };
        let wanted: Vec<(String, bool)> =
            served.iter().map(|(name, it)| (it.unit.clone(), takes_part(name, &it.unit))).collect();
        let lease = database.settings.lease_time;
        shares::see_to(database, wanted.clone());
        let gained = {
            let mut shares = database.shares.lock();
            self.claimable = wanted.iter().map(|(unit, _)| (unit.clone(), shares.claimable(unit, lease))).collect();
            shares.gained()
        };
        if !gained.is_empty() {
            let is_gained = |source: &Source| {
                gained.iter().any(|(unit, number)| *unit == source.unit && Some(*number) == source.leg.partition)
            };
            self.unwanted.extend(database.intake.drop_all(is_gained));
        }
        self.follow(database, &served)
    }

    /// Looks whether earlier patterns have come to their ends.
    fn follow(&mut self, database: &Arc<Database>, served: &[(Arc<str>, Served)]) -> Result<(), BackendError> {
        let legs = served.iter().flat_map(|(_, it)| &it.legs);
        let earlier: Vec<Arc<Leg>> = legs.filter(|leg| leg.until < u64::MAX).cloned().collect();
        self.ended.retain(|ended| earlier.iter().any(|leg| leg.ack_name() == *ended));
        let open: Vec<Leg> =
            earlier.iter().filter(|leg| !self.ended.contains(&leg.ack_name())).map(|leg| (**leg).clone()).collect();
        if open.is_empty() || self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let asked = open.clone();
        let told = database.runtime.call(move |session| async move { progress(&session, &asked).await })?;
        let ended = open.iter().zip(told).filter(|(leg, told)| told.unwrap_or_default().has_ended(leg.until));
        self.ended.extend(ended.map(|(leg, _)| leg.ack_name()));
        Ok(())
    }

    /// When there is something to see to again.
    pub(crate) fn next(&self, database: &Database) -> Option<Instant> {
        (database.partitions() > 0).then(|| database.shares.lock().next(database.settings.lease_time))
    }

    /// The consumers of a subscription to take from, in the order in which that is to be tried.
    pub(crate) fn legs(&mut self, database: &Database, served: &Served) -> Vec<Arc<Leg>> {
        if database.partitions() == 0 {
            return served.legs.clone();
        }
        let claimable = self.claimable.get(&served.unit);
        let has_its_turn = |leg: &&Arc<Leg>| {
            let Some(number) = leg.partition else { return true };
            let is_before = |it: &&Arc<Leg>| it.partition == leg.partition && it.changes < leg.changes;
            claimable.is_some_and(|claimable| claimable.contains(&number))
                && served.legs.iter().filter(is_before).all(|it| self.ended.contains(&it.ack_name()))
        };
        let mut legs: Vec<Arc<Leg>> = served.legs.iter().filter(has_its_turn).cloned().collect();
        // What was made again stays the first.
        if let [_, divided @ ..] = &mut legs[..]
            && !divided.is_empty()
        {
            self.turn = (self.turn + 1) % divided.len();
            divided.rotate_left(self.turn);
        }
        legs
    }

    /// How much it may take of each partition of a subscription at the moment.
    pub(crate) fn rooms(&self, database: &Database, unit: &str) -> HashMap<u32, usize> {
        let Some(claimable) = self.claimable.get(unit) else { return HashMap::new() };
        if !database.shares.lock().is_fresh(unit, database.settings.lease_time) {
            return HashMap::new();
        }
        let handed_out = database.handed_out_by_partition(unit);
        let demand = |number: &u32| (*number, DEPTH.saturating_sub(handed_out.get(number).copied().unwrap_or(0)));
        claimable.iter().map(demand).collect()
    }

    /// What is to go back because others have had its partition.
    pub(crate) fn unwanted(&mut self) -> Vec<Unwanted> {
        mem::take(&mut self.unwanted)
    }

    /// Whether the server has heard lately that what it takes from is its own.
    pub(crate) fn are_fresh(&self, database: &Database) -> bool {
        let takes = self.claimable.iter().filter(|(_, claimable)| !claimable.is_empty());
        if database.partitions() == 0 {
            return true;
        }
        let shares = database.shares.lock();
        takes.map(|(unit, _)| unit).all(|unit| shares.is_fresh(unit, database.settings.lease_time))
    }
}
