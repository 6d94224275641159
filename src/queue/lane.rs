//! Lanes: they keep the order of each key within a subscription. A lane runs one delivery at a time.
//!
//! Publishers only append to one queue, in the order of arrival. A worker takes a delivery from the queue and enters
//! its lane under one lock, so every lane has the order of the queue. A lane exists while a delivery of its key, its
//! *head*, runs or waits for a retry; the head itself is not stored here. Deliveries of the key that are taken
//! meanwhile are parked behind the head, and the first of them becomes the head when the head is settled. A worker thus
//! passes over busy keys: it is never held up if the queue has a delivery without a key, or with a free one.

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
    /// Deliveries that have not entered a lane yet. Each holds a place, so a push always finds room.
    arrived: ArrayQueue<SharedRecord>,
    entered: Mutex<Entered>,
}

#[derive(Debug, Default)]
struct Entered {
    lanes: HashMap<LaneKey, Lane, BuildHasherDefault<NumberHasher>>,
    /// Deliveries parked so far; numbers them in the order of arrival.
    parked: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// The head waits for a retry: parked deliveries count as waiting, not as queued.
    waiting: bool,
    parked: VecDeque<(u64, QueuedDelivery)>,
}

/// The result of a take from the queue.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// A delivery that can run; with a key, it is the head of its lane.
    pub(crate) delivery: Option<QueuedDelivery>,
    /// How many deliveries were parked behind a retry meanwhile: they count as waiting, so release their queue places.
    pub(crate) moved: u64,
}

impl Lanes {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { arrived: ArrayQueue::new(capacity), entered: Mutex::default() }
    }

    /// Appends a delivery to the queue. Returns it if the queue is full, which its place rules out.
    pub(crate) fn push(&self, record: SharedRecord) -> Result<(), SharedRecord> {
        self.arrived.push(record)
    }

    pub(crate) fn arrived(&self) -> usize {
        self.arrived.len()
    }

    pub(crate) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Takes the first delivery whose lane is free, or that has none, and parks those before it. `waiting` is raised
    /// for each that is parked behind a retry, before the lock is released.
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

    /// Enters a delivery into its lane without the queue. Returns it if it is the head.
    pub(crate) fn enter(&self, key: LaneKey, delivery: QueuedDelivery, waiting: &AtomicUsize) -> Taken {
        let mut moved = 0;
        let delivery = self.entered.lock().enter(key, delivery, waiting, &mut moved);
        Taken { delivery, moved }
    }

    /// Ends the head of a lane. Returns the next delivery of the key, which is the head now.
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

    /// Notes that the head waits for a retry. Returns how many parked deliveries give up their queue places for that.
    pub(crate) fn head_waits(&self, key: LaneKey) -> usize {
        let mut entered = self.entered.lock();
        let Some(lane) = entered.lanes.get_mut(&key) else { return 0 };
        lane.waiting = true;
        let queued = lane.parked.iter_mut().filter(|(_, delivery)| delivery.place == Place::Queue);
        queued.map(|(_, delivery)| delivery.place = Place::Waiting).count()
    }

    /// Notes that the retry of the head is due.
    pub(crate) fn head_returns(&self, key: LaneKey) {
        if let Some(lane) = self.entered.lock().lanes.get_mut(&key) {
            lane.waiting = false;
        }
    }

    /// Whether the lane of this key has no head.
    pub(crate) fn is_free(&self, key: LaneKey) -> bool {
        !self.entered.lock().lanes.contains_key(&key)
    }

    /// Takes the oldest delivery that holds a queue place and is no head. Parked ones are older than queued ones.
    pub(crate) fn take_oldest(&self) -> Option<QueuedDelivery> {
        let mut entered = self.entered.lock();
        // Deliveries parked before it may have given up their places behind a retry.
        let first = |lane: &Lane| lane.parked.iter().position(|(_, it)| it.place == Place::Queue);
        let candidates = entered.lanes.iter().filter_map(|(key, lane)| Some((lane.parked[first(lane)?].0, *key)));
        let oldest = candidates.min_by_key(|(number, _)| *number);
        match oldest.and_then(|(_, key)| entered.lanes.get_mut(&key)) {
            Some(lane) => lane.parked.remove(first(lane)?).map(|(_, delivery)| delivery),
            None => self.arrived.pop().map(|record| QueuedDelivery::new(record, Place::Queue)),
        }
    }

    /// Takes the leased deliveries that are parked. Every lane keeps its head.
    pub(crate) fn take_parked_leases(&self) -> Vec<QueuedDelivery> {
        let mut taken = Vec::new();
        for lane in self.entered.lock().lanes.values_mut() {
            let (leased, rest) = std::mem::take(&mut lane.parked).into_iter().partition(|(_, it)| it.lease().is_some());
            lane.parked = rest;
            let leased: VecDeque<(u64, QueuedDelivery)> = leased;
            taken.extend(leased.into_iter().map(|(_, delivery)| delivery));
        }
        taken
    }

    /// Takes all deliveries, queued and parked, and removes the lanes.
    pub(crate) fn take_all(&self) -> Vec<QueuedDelivery> {
        let lanes = std::mem::take(&mut self.entered.lock().lanes);
        let parked = lanes.into_values().flat_map(|lane| lane.parked).map(|(_, delivery)| delivery);
        let arrived = std::iter::from_fn(|| self.arrived.pop()).map(|record| QueuedDelivery::new(record, Place::Queue));
        parked.chain(arrived).collect()
    }
}

impl Entered {
    /// Returns the delivery if it is the head, else parks it. `moved` counts queue places given up behind a retry.
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
