//! Lanes: what keeps the order of a key within a subscription. A lane runs one delivery at a time.
//!
//! Publishers only append to one queue, in the order of arrival; a delivery enters its lane when a worker takes it from there,
//! under the lock of the lanes, so the order of the queue is the order of every lane. A lane exists while a delivery of its
//! key, its *head*, runs or waits for a retry; the head is not in here. What is taken meanwhile is parked behind it, and the
//! next one becomes the head when the head is done. So a worker that finds only busy keys has nothing to run, and one that
//! finds an event without a key, or of a free one, is never held up.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;

use super::delivery::{Place, QueuedDelivery};
use super::lane_key::LaneKey;
use crate::base::NumberHasher;
use crate::store::SharedRecord;

/// The lanes of one subscription, and the queue in front of them.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// What has not entered a lane yet. Each holds a place, so there is always room.
    arrived: ArrayQueue<SharedRecord>,
    entered: Mutex<Entered>,
}

#[derive(Debug, Default)]
struct Entered {
    lanes: HashMap<LaneKey, Lane, BuildHasherDefault<NumberHasher>>,
    /// Deliveries parked so far: numbers them in the order of arrival.
    parked: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// The head waits for a retry: what is parked here counts as waiting, not as queued.
    waiting: bool,
    parked: VecDeque<(u64, QueuedDelivery)>,
}

/// What was taken from the queue.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// It can be run; with a key, it is the head of its lane.
    pub(crate) delivery: Option<QueuedDelivery>,
    /// How many were parked behind a retry before it was found: they count as waiting now, and gave up their queue places.
    pub(crate) moved: u64,
}

impl Lanes {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { arrived: ArrayQueue::new(capacity), entered: Mutex::default() }
    }

    /// A delivery arrives. Hands it back if there is no room, which its place rules out.
    pub(crate) fn push(&self, record: SharedRecord) -> Result<(), SharedRecord> {
        self.arrived.push(record)
    }

    pub(crate) fn arrived(&self) -> usize {
        self.arrived.len()
    }

    pub(crate) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Takes the first delivery whose lane is free, or that has none; those before it are parked. `lane_of` names the lane of a
    /// delivery; `waiting` counts what waits, and grows before that can be seen.
    pub(crate) fn take(&self, lane_of: impl Fn(&QueuedDelivery) -> Option<LaneKey>, waiting: &AtomicUsize) -> Taken {
        let mut taken = Taken::default();
        let mut entered = self.entered.lock();
        while let Some(record) = self.arrived.pop() {
            let delivery = QueuedDelivery::new(record, Place::Queue);
            let Some(key) = lane_of(&delivery) else {
                taken.delivery = Some(delivery);
                break;
            };
            taken.delivery = entered.enter(key, delivery, waiting, &mut taken.moved);
            if taken.delivery.is_some() {
                break;
            }
        }
        taken
    }

    /// A delivery enters its lane without having been in the queue. Returns it if it is the head.
    pub(crate) fn enter(&self, key: LaneKey, delivery: QueuedDelivery, waiting: &AtomicUsize) -> Taken {
        let mut moved = 0;
        let delivery = self.entered.lock().enter(key, delivery, waiting, &mut moved);
        Taken { delivery, moved }
    }

    /// The head is done: the next delivery of the key is the head now.
    pub(crate) fn advance(&self, key: LaneKey) -> Option<QueuedDelivery> {
        let mut entered = self.entered.lock();
        let Entry::Occupied(mut lane) = entered.lanes.entry(key) else { return None };
        lane.get_mut().waiting = false;
        let next = lane.get_mut().parked.pop_front();
        if next.is_none() {
            lane.remove();
        }
        next.map(|(_, delivery)| delivery.heads(key))
    }

    /// The head waits for a retry. Returns how many parked deliveries gave up their queue places and wait with it.
    pub(crate) fn head_waits(&self, key: LaneKey) -> usize {
        let mut entered = self.entered.lock();
        let Some(lane) = entered.lanes.get_mut(&key) else { return 0 };
        lane.waiting = true;
        let queued = lane.parked.iter_mut().filter(|(_, delivery)| delivery.place == Place::Queue);
        queued.map(|(_, delivery)| delivery.place = Place::Waiting).count()
    }

    /// The head's retry is due: it is queued again.
    pub(crate) fn head_returns(&self, key: LaneKey) {
        if let Some(lane) = self.entered.lock().lanes.get_mut(&key) {
            lane.waiting = false;
        }
    }

    /// Whether the lane of this key has no head.
    pub(crate) fn is_free(&self, key: LaneKey) -> bool {
        !self.entered.lock().lanes.contains_key(&key)
    }

    /// Takes the oldest delivery that holds a queue place and is no head: what is parked came before what has just arrived.
    pub(crate) fn take_oldest(&self) -> Option<QueuedDelivery> {
        let mut entered = self.entered.lock();
        // Those in front of it may have waited behind a retry.
        let first = |lane: &Lane| lane.parked.iter().position(|(_, it)| it.place == Place::Queue);
        let candidates = entered.lanes.iter().filter_map(|(key, lane)| Some((lane.parked[first(lane)?].0, *key)));
        let oldest = candidates.min_by_key(|(number, _)| *number);
        match oldest.and_then(|(_, key)| entered.lanes.get_mut(&key)) {
            Some(lane) => lane.parked.remove(first(lane)?).map(|(_, delivery)| delivery),
            None => self.arrived.pop().map(|record| QueuedDelivery::new(record, Place::Queue)),
        }
    }

    /// Takes what is parked under a lease; every lane keeps its head.
    pub(crate) fn take_parked_leases(&self) -> Vec<QueuedDelivery> {
        let mut taken = Vec::new();
        for lane in self.entered.lock().lanes.values_mut() {
            let (leased, kept) = std::mem::take(&mut lane.parked).into_iter().partition(|(_, it)| it.lease().is_some());
            lane.parked = kept;
            let leased: VecDeque<(u64, QueuedDelivery)> = leased;
            taken.extend(leased.into_iter().map(|(_, delivery)| delivery));
        }
        taken
    }

    /// Takes everything that has arrived or is parked; the lanes are gone.
    pub(crate) fn take_all(&self) -> Vec<QueuedDelivery> {
        let lanes = std::mem::take(&mut self.entered.lock().lanes);
        let parked = lanes.into_values().flat_map(|lane| lane.parked).map(|(_, delivery)| delivery);
        let arrived = std::iter::from_fn(|| self.arrived.pop()).map(|record| QueuedDelivery::new(record, Place::Queue));
        parked.chain(arrived).collect()
    }
}

impl Entered {
    /// Returns the delivery if it is the head. `moved` counts those that are parked behind a retry, without their queue places.
    fn enter(
        &mut self,
        key: LaneKey,
        mut delivery: QueuedDelivery,
        waiting: &AtomicUsize,
        moved: &mut u64,
    ) -> Option<QueuedDelivery> {
        let lane = match self.lanes.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(Lane::default());
                return Some(delivery.heads(key));
            }
            Entry::Occupied(lane) => lane.into_mut(),
        };
        if lane.waiting && delivery.place != Place::Waiting {
            waiting.fetch_add(1, Ordering::AcqRel);
            *moved += u64::from(delivery.place == Place::Queue);
            delivery.place = Place::Waiting;
        }
        lane.parked.push_back((self.parked, delivery));
        self.parked += 1;
        None
    }
}
