//! Lanes: a FIFO per key, run by at most one worker at a time. They keep the order of a key within a subscription.
//!
//! A lane exists while a delivery of its key is queued, running or waiting for a retry. That delivery is the *head*; it is
//! not in here. What arrives meanwhile is parked behind it, and the next one becomes the head when the head is done. So
//! whatever stands in a subscription's ready queue can be run at once, by anybody.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::inbox::{Place, Queued};

/// The key of a lane.
pub(crate) type LaneKey = Arc<str>;

/// The lanes of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: Mutex<HashMap<LaneKey, Lane>>,
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
    pub(crate) fn enter(&self, key: &LaneKey, mut delivery: Queued, waiting_count: &AtomicUsize) -> Entered {
        match self.lanes.lock().entry(Arc::clone(key)) {
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
    pub(crate) fn advance(&self, key: &LaneKey) -> Option<Queued> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.get_mut(key)?;
        lane.waiting = false;
        let next = lane.parked.pop_front();
        if next.is_none() {
            lanes.remove(key);
        }
        next
    }

    /// The head waits for a retry. Returns how many parked deliveries gave up their queue places and wait with it.
    pub(crate) fn head_waits(&self, key: &LaneKey) -> usize {
        let mut lanes = self.lanes.lock();
        let Some(lane) = lanes.get_mut(key) else { return 0 };
        lane.waiting = true;
        let queued = lane.parked.iter_mut().filter(|delivery| delivery.place == Place::Queue);
        queued.map(|delivery| delivery.place = Place::Waiting).count()
    }

    /// The head's retry is due: it is queued again.
    pub(crate) fn head_returns(&self, key: &LaneKey) {
        if let Some(lane) = self.lanes.lock().get_mut(key) {
            lane.waiting = false;
        }
    }

    /// Whether a delivery of this key would be the head.
    pub(crate) fn is_free(&self, key: &LaneKey) -> bool {
        !self.lanes.lock().contains_key(key)
    }

    /// Takes the oldest parked delivery that holds a queue place, over all lanes.
    pub(crate) fn take_oldest(&self) -> Option<Queued> {
        let mut lanes = self.lanes.lock();
        // Those in front of it may have waited behind a retry.
        let first = |lane: &Lane| lane.parked.iter().position(|it| it.place == Place::Queue);
        let candidates = lanes.values_mut().filter_map(|lane| first(lane).map(|at| (lane, at)));
        let (lane, at) = candidates.min_by_key(|(lane, at)| lane.parked[*at].order)?;
        lane.parked.remove(at)
    }

    /// Takes everything that is parked; the lanes are gone.
    pub(crate) fn take_all(&self) -> Vec<Queued> {
        std::mem::take(&mut *self.lanes.lock()).into_values().flat_map(|lane| lane.parked).collect()
    }
}
