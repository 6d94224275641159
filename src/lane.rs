//! Lanes: a FIFO per key, run by at most one worker at a time. They keep the order of a key within a subscription.
//!
//! A lane exists while a delivery of its key is queued, running or waiting for a retry. That delivery is the *head*; it is
//! not in here. What arrives meanwhile is parked behind it, and the next one becomes the head when the head is done. So
//! whatever stands in a subscription's ready queue can be run at once, by anybody.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::hash::{NumberHasher, hash_text};
use crate::inbox::{Place, Queued};

/// What names a lane: the hash of a key. Should two keys have the same, they share the lane, which keeps the order of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey(u64);

impl LaneKey {
    /// The one lane of a subscription that keeps the order of everything.
    pub(crate) const ALL: Self = Self(0);

    pub(crate) fn of(key: &str) -> Self {
        Self(hash_text(key))
    }
}

/// How many locks the lanes of a subscription are spread over, so that a publisher and a worker seldom meet at one.
const SHARDS: usize = 8;

type Shard = Mutex<HashMap<LaneKey, Lane, BuildHasherDefault<NumberHasher>>>;

/// The lanes of one subscription. They cost nothing before the first key comes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    shards: OnceLock<Box<[CachePadded<Shard>; SHARDS]>>,
}

#[derive(Debug, Default)]
struct Lane {
    /// The head waits for a retry: what is parked here counts as waiting, not as queued.
    waiting: bool,
    parked: VecDeque<Queued>,
}

/// Where a delivery went that entered a lane.
#[derive(Debug)]
pub(crate) enum Entered {
    /// It is the head: whoever holds it must see that it runs.
    Head(Queued),
    /// It is parked behind a head that is queued or runs.
    Parked,
    /// It is parked behind a head that waits for a retry, and its place counts as waiting now.
    ParkedWaiting,
}

impl Lanes {
    /// A delivery arrives.
    /// `waiting_count` counts what waits; it grows before the delivery can be seen.
    pub(crate) fn enter(&self, key: LaneKey, mut delivery: Queued, waiting_count: &AtomicUsize) -> Entered {
        match self.shard(key).lock().entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(Lane::default());
                Entered::Head(delivery)
            }
            Entry::Occupied(mut lane) => {
                let lane = lane.get_mut();
                let waiting = lane.waiting;
                if waiting && delivery.place != Place::Waiting {
                    waiting_count.fetch_add(1, Ordering::AcqRel);
                    delivery.place = Place::Waiting;
                }
                lane.parked.push_back(delivery);
                if waiting { Entered::ParkedWaiting } else { Entered::Parked }
            }
        }
    }

    /// The head is done: the next delivery of the key is the head now.
    pub(crate) fn advance(&self, key: LaneKey) -> Option<Queued> {
        let mut lanes = self.shard(key).lock();
        let Entry::Occupied(mut lane) = lanes.entry(key) else { return None };
        lane.get_mut().waiting = false;
        let next = lane.get_mut().parked.pop_front();
        if next.is_none() {
            lane.remove();
        }
        next
    }

    /// The head waits for a retry. Returns how many parked deliveries gave up their queue places and wait with it.
    pub(crate) fn head_waits(&self, key: LaneKey) -> usize {
        let mut lanes = self.shard(key).lock();
        let Some(lane) = lanes.get_mut(&key) else { return 0 };
        lane.waiting = true;
        let queued = lane.parked.iter_mut().filter(|delivery| delivery.place == Place::Queue);
        queued.map(|delivery| delivery.place = Place::Waiting).count()
    }

    /// The head's retry is due: it is queued again.
    pub(crate) fn head_returns(&self, key: LaneKey) {
        if let Some(lane) = self.shard(key).lock().get_mut(&key) {
            lane.waiting = false;
        }
    }

    /// Whether a delivery of this key would be the head.
    pub(crate) fn is_free(&self, key: LaneKey) -> bool {
        !self.shard(key).lock().contains_key(&key)
    }

    /// Takes the oldest parked delivery that holds a queue place, over all lanes.
    pub(crate) fn take_oldest(&self) -> Option<Queued> {
        // Those in front of it may have waited behind a retry.
        let first = |lane: &Lane| lane.parked.iter().position(|it| it.place == Place::Queue);
        let oldest = |lanes: &Shard| {
            let lanes = lanes.lock();
            let candidates = lanes.iter().filter_map(|(key, lane)| Some((lane.parked[first(lane)?].order, *key)));
            candidates.min_by_key(|(order, _)| *order)
        };
        let (_, key) = self.shards().iter().filter_map(|lanes| oldest(lanes)).min_by_key(|(order, _)| *order)?;
        // It may have moved up meanwhile: then the next one of its key is old enough.
        let mut lanes = self.shard(key).lock();
        let lane = lanes.get_mut(&key)?;
        lane.parked.remove(first(lane)?)
    }

    /// Takes everything that is parked; the lanes are gone.
    pub(crate) fn take_all(&self) -> Vec<Queued> {
        let lanes = self.shards().iter().flat_map(|lanes| std::mem::take(&mut *lanes.lock()));
        lanes.flat_map(|(_, lane)| lane.parked).collect()
    }

    fn shards(&self) -> &[CachePadded<Shard>] {
        self.shards.get().map_or(&[], |shards| &shards[..])
    }

    fn shard(&self, key: LaneKey) -> &Shard {
        &self.shards.get_or_init(Box::default)[key.0 as usize % SHARDS]
    }
}
