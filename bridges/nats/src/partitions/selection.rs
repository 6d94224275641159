//! The selection of the consumers that the ingest may take from: all without partitions, those of owned partitions with them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::claims::{Claims, Participation};
use crate::jetstream::Consumer;
use crate::settings::LeaseTimes;
use crate::subscriptions::{HeldMessages, LocalSubscription};

/// The largest number of held messages of a partition: a new owner begins with all of them.
const DEPTH: usize = 256;

/// The selection of the ingest.
pub(crate) struct Selection {
    /// The claims; `None` without partitions.
    claims: Option<Arc<Claims>>,
    held: Arc<HeldMessages>,
    times: LeaseTimes,
    /// The partitions that it may take from, by the durable name of the subscription.
    claimable: HashMap<String, BTreeSet<u32>>,
    /// The rotation of the partitions: each step begins at another one.
    rotation: usize,
}

impl Selection {
    pub(crate) fn new(claims: Option<Arc<Claims>>, held: &Arc<HeldMessages>, times: LeaseTimes) -> Self {
        Self { claims, held: Arc::clone(held), times, claimable: HashMap::new(), rotation: 0 }
    }

    /// Polls the claims. Returns the partitions that were gained.
    pub(crate) fn update(&mut self, participations: Vec<Participation>) -> Vec<(String, u32)> {
        let Some(claims) = &self.claims else { return Vec::new() };
        let durables: Vec<String> = participations.iter().map(|it| it.durable.clone()).collect();
        claims.poll(participations);
        self.claimable = durables.into_iter().map(|it| (it.clone(), claims.claimable(&it))).collect();
        claims.take_gained()
    }

    /// When the claims should be polled again.
    pub(crate) fn next_poll(&self) -> Option<Instant> {
        self.claims.as_ref().map(|claims| claims.next_poll())
    }

    /// The consumers of a subscription to take from, in the order of this step.
    pub(crate) fn consumers(&mut self, local: &LocalSubscription) -> Vec<Arc<Consumer>> {
        if self.claims.is_none() {
            return local.consumers.clone();
        }
        let claimable = self.claimable.get(&local.durable);
        let is_selected = |consumer: &&Arc<Consumer>| {
            consumer.partition.is_none_or(|number| claimable.is_some_and(|it| it.contains(&number)))
        };
        let mut selected: Vec<Arc<Consumer>> = local.consumers.iter().filter(is_selected).cloned().collect();
        // Requeues stay first.
        if let [_, partitions @ ..] = &mut selected[..]
            && !partitions.is_empty()
        {
            self.rotation = (self.rotation + 1) % partitions.len();
            partitions.rotate_left(self.rotation);
        }
        selected
    }

    /// The number of messages that it may take of each partition of a subscription now.
    pub(crate) fn rooms(&self, durable: &str) -> HashMap<u32, usize> {
        let (Some(claims), Some(claimable)) = (&self.claims, self.claimable.get(durable)) else {
            return HashMap::new();
        };
        if !claims.is_fresh(durable) {
            return HashMap::new();
        }
        let held = self.held.by_partition(durable, self.times);
        let room = |number: &u32| (*number, DEPTH.saturating_sub(held.get(number).copied().unwrap_or(0)));
        claimable.iter().map(room).collect()
    }

    /// Whether all claims that it takes from were renewed lately.
    pub(crate) fn is_fresh(&self) -> bool {
        let Some(claims) = &self.claims else { return true };
        let mut taken = self.claimable.iter().filter(|(_, claimable)| !claimable.is_empty());
        taken.all(|(durable, _)| claims.is_fresh(durable))
    }
}
