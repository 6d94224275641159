//! What waits for one subscription: the bounded queue, the lanes behind it, retries that are due, and those that wait.
//!
//! A publisher reserves a *place* before anything is stored, and fills it after; a worker releases it when the first attempt
//! begins. Places are counted by two counters that only grow, one written by publishers and one by workers, so that
//! neither takes the other's cache line for every event. A delivery itself is told of in `inbox/queued.rs`. Who runs what is not decided
//! here (`subscription`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_queue::{ArrayQueue, SegQueue};
use crossbeam_utils::CachePadded;
use parking_lot::{Condvar, Mutex};

use super::delivery::{Place, QueuedDelivery};
use super::lane::{Lanes, Taken};
use super::lane_key::LaneKey;
use crate::base::Clock;
use crate::event::Event;
use crate::store::SharedRecord;

/// A publisher that waits for room is woken for a quarter of the queue, at most for so many places, ...
const SEVERAL: u64 = 256;
/// ... counted every so many deliveries, ...
const GLANCE_EVERY: u64 = 32;
/// ... unless it has waited this long.
const FOR_SEVERAL: Duration = Duration::from_micros(200);

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Inbox {
    capacity: u64,
    max_waiting: usize,
    publishers: CachePadded<PublisherSide>,
    /// Places given back so far.
    released: CachePadded<AtomicU64>,
    /// Retries, and deliveries parked behind them.
    waiting: AtomicUsize,
    /// Length of `due`, so that the common case costs one load.
    due_len: AtomicUsize,
    /// Every event has its turn, as if all had the same key.
    ordered: bool,
    /// What has just arrived, until the first with a key comes. Made when the first arrives: a subscription that never sees an
    /// event costs little. Each element holds a place, so there is always room.
    fresh: OnceLock<ArrayQueue<SharedRecord>>,
    /// From the first key on, everything arrives here.
    lanes: OnceLock<Box<Lanes>>,
    /// What goes first and can be run at once: retries that are due, heads of lanes, requeued dead letters, leased deliveries.
    due: SegQueue<QueuedDelivery>,
    waiters: Capacity,
}

#[derive(Debug, Default)]
struct PublisherSide {
    /// Places taken so far.
    taken: AtomicU64,
    /// A value that `released` had; looked up again only when the queue seems full.
    released_seen: AtomicU64,
}

/// Publishers that wait for a place.
///
/// To wake one costs as much as hundreds of quick deliveries, so at first they wait for several places at once. Where that
/// takes longer than it is worth, they are content with one.
#[derive(Debug, Default)]
struct Capacity {
    count: AtomicUsize,
    /// Those of them that wait for any place.
    content_with_one: AtomicUsize,
    gate: Mutex<()>,
    changed: Condvar,
}

impl Inbox {
    pub(crate) fn new(capacity: usize, max_waiting: usize, ordered: bool) -> Self {
        Self {
            ordered,
            capacity: capacity as u64,
            max_waiting,
            publishers: CachePadded::default(),
            released: CachePadded::default(),
            waiting: AtomicUsize::new(0),
            due_len: AtomicUsize::new(0),
            fresh: OnceLock::new(),
            lanes: OnceLock::new(),
            due: SegQueue::new(),
            waiters: Capacity::default(),
        }
    }

    /// Deliveries that hold a place.
    pub(crate) fn queued(&self) -> u64 {
        let released = self.released.load(Ordering::SeqCst);
        self.publishers.taken.load(Ordering::SeqCst).saturating_sub(released)
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Retries that wait, and deliveries parked behind them.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Takes a place; false if there is none.
    pub(crate) fn reserve(&self) -> bool {
        if self.waiting.load(Ordering::Relaxed) >= self.max_waiting {
            return false;
        }
        let side = &*self.publishers;
        let mut taken = side.taken.load(Ordering::Relaxed);
        loop {
            if taken.saturating_sub(side.released_seen.load(Ordering::Relaxed)) >= self.capacity {
                let released = self.released.load(Ordering::Acquire);
                side.released_seen.store(released, Ordering::Relaxed);
                if taken.saturating_sub(released) >= self.capacity {
                    return false;
                }
            }
            match side.taken.compare_exchange_weak(taken, taken + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => taken = now,
            }
        }
    }

    /// Gives places back.
    pub(crate) fn release(&self, places: u64) {
        let released = self.released.fetch_add(places, Ordering::SeqCst);
        if self.waiters.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        // Now and then is enough: what it reads for that belongs to those who publish.
        let glance = || released.is_multiple_of(self.several().min(GLANCE_EVERY));
        if self.waiters.content_with_one.load(Ordering::SeqCst) > 0 || glance() && self.has_several_places() {
            self.wake_publishers();
        }
    }

    /// How many places make it worth to wake a publisher.
    fn several(&self) -> u64 {
        (self.capacity / 4).clamp(1, SEVERAL)
    }

    fn has_several_places(&self) -> bool {
        !self.is_full_of_waiting() && self.queued() + self.several() <= self.capacity
    }

    /// Waits until a place may be free, at most until `deadline`. False when the time is up.
    pub(crate) fn wait_for_room(&self, clock: &Clock, deadline: u64, give_up: impl Fn() -> bool) -> bool {
        self.waiters.count.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.waiters.gate.lock();
        let patience = FOR_SEVERAL.min(Duration::from_nanos(deadline.saturating_sub(clock.now())));
        if !self.has_several_places() && !give_up() {
            self.waiters.changed.wait_for(&mut guard, patience);
        }
        self.waiters.content_with_one.fetch_add(1, Ordering::SeqCst);
        let mut in_time = true;
        while in_time && self.is_full() && !give_up() {
            in_time = clock.wait(&self.waiters.changed, &mut guard, deadline);
        }
        drop(guard);
        self.waiters.content_with_one.fetch_sub(1, Ordering::SeqCst);
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
        in_time
    }

    pub(crate) fn wake_publishers(&self) {
        drop(self.waiters.gate.lock());
        self.waiters.changed.notify_all();
    }

    /// At least half of the places are free.
    pub(crate) fn is_half_empty(&self) -> bool {
        !self.is_full_of_waiting() && self.queued() <= self.capacity / 2
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full_of_waiting() || self.queued() >= self.capacity
    }

    /// The bound of what waits is reached: no place in the queue helps.
    pub(crate) fn is_full_of_waiting(&self) -> bool {
        self.waiting() >= self.max_waiting
    }

    /// The lane of an event, if its order matters.
    pub(crate) fn lane(&self, event: &Event) -> Option<LaneKey> {
        if self.ordered { Some(LaneKey::ALL) } else { event.key().map(LaneKey::of) }
    }

    /// A delivery arrives, with the place that was reserved for it. A worker sees to its lane.
    pub(crate) fn push(&self, record: SharedRecord) {
        let keyed = self.ordered || record.event.key().is_some();
        let lanes = if keyed { Some(self.lanes()) } else { self.lanes.get().map(|lanes| &**lanes) };
        let pushed = match lanes {
            Some(lanes) => lanes.push(record),
            None => self.fresh.get_or_init(|| ArrayQueue::new(self.capacity as usize)).push(record),
        };
        if let Err(record) = pushed {
            self.enter(QueuedDelivery::new(record, Place::Queue));
        }
    }

    /// A delivery that is not among those that have just arrived can be run as soon as its lane is free. True if that is now.
    pub(crate) fn enter(&self, delivery: QueuedDelivery) -> bool {
        let head = self.enter_lane(delivery);
        head.is_some_and(|head| {
            self.push_due(head);
            true
        })
    }

    /// Enters the lane of a delivery; returns it if it can be run now.
    pub(crate) fn enter_lane(&self, delivery: QueuedDelivery) -> Option<QueuedDelivery> {
        match self.lane(&delivery.record.event) {
            Some(lane) => self.taken(self.lanes().enter(lane, delivery, &self.waiting)),
            None => Some(delivery),
        }
    }

    fn lanes(&self) -> &Lanes {
        self.lanes.get_or_init(|| Box::new(Lanes::new(self.capacity as usize)))
    }

    fn taken(&self, taken: Taken) -> Option<QueuedDelivery> {
        if taken.moved > 0 {
            self.release(taken.moved);
        }
        taken.delivery
    }

    /// Whether a delivery of this lane would be the next to run.
    pub(crate) fn is_next(&self, lane: Option<LaneKey>) -> bool {
        !self.has_ready() && self.is_free(lane)
    }

    /// Whether no delivery of this lane runs or waits for a retry.
    pub(crate) fn is_free(&self, lane: Option<LaneKey>) -> bool {
        lane.is_none_or(|lane| self.lanes.get().is_none_or(|lanes| lanes.is_free(lane)))
    }

    /// Something waits for a worker; it may turn out that its key is busy.
    pub(crate) fn has_ready(&self) -> bool {
        self.fresh.get().is_some_and(|fresh| !fresh.is_empty())
            || self.lanes.get().is_some_and(|lanes| lanes.has_arrived())
            || self.due_len.load(Ordering::SeqCst) > 0
    }

    /// How many of them there are.
    pub(crate) fn ready_len(&self) -> usize {
        let fresh = self.fresh.get().map_or(0, ArrayQueue::len);
        fresh + self.lanes.get().map_or(0, |lanes| lanes.arrived()) + self.due_len.load(Ordering::SeqCst)
    }

    /// The next delivery to run: retries that are due first.
    pub(crate) fn pop(&self) -> Option<QueuedDelivery> {
        if self.due_len.load(Ordering::Relaxed) > 0
            && let Some(delivery) = self.due.pop()
        {
            self.due_len.fetch_sub(1, Ordering::AcqRel);
            return Some(delivery);
        }
        let Some(lanes) = self.lanes.get() else { return self.pop_fresh() };
        // Few are left here since the first key came.
        let before = self.fresh.get().filter(|fresh| !fresh.is_empty()).and_then(|_| self.pop_fresh());
        before.or_else(|| self.taken(lanes.take(|delivery| self.lane(&delivery.record.event), &self.waiting)))
    }

    fn pop_fresh(&self) -> Option<QueuedDelivery> {
        let record = self.fresh.get()?.pop()?;
        Some(QueuedDelivery::new(record, Place::Queue))
    }

    /// A delivery leaves: its attempt begins, or it is settled without one.
    pub(crate) fn leave(&self, delivery: &mut QueuedDelivery) {
        match std::mem::replace(&mut delivery.place, Place::None) {
            Place::Queue => self.release(1),
            Place::Waiting => {
                self.waiting.fetch_sub(1, Ordering::AcqRel);
                if self.waiters.count.load(Ordering::SeqCst) > 0 {
                    self.wake_publishers();
                }
            }
            Place::None => {}
        }
    }

    /// A delivery failed and will wait for a retry; what is behind its key waits with it.
    pub(crate) fn start_waiting(&self, delivery: &mut QueuedDelivery) {
        delivery.place = Place::Waiting;
        let moved = delivery.lane.map_or(0, |lane| self.lanes().head_waits(lane));
        self.waiting.fetch_add(1 + moved, Ordering::AcqRel);
        if moved > 0 {
            self.release(moved as u64);
        }
    }

    /// The retry of a delivery is due.
    pub(crate) fn end_waiting(&self, delivery: QueuedDelivery) {
        if let Some(lane) = delivery.lane {
            self.lanes().head_returns(lane);
        }
        self.push_due(delivery);
    }

    /// A delivery that can be run at once, before what has just arrived.
    pub(crate) fn push_due(&self, delivery: QueuedDelivery) {
        self.due_len.fetch_add(1, Ordering::SeqCst);
        self.due.push(delivery);
    }

    /// The head of a lane is done. True if another delivery of its key can be run now.
    pub(crate) fn advance(&self, lane: LaneKey) -> bool {
        let next = self.lanes().advance(lane);
        next.is_some_and(|next| {
            self.push_due(next);
            true
        })
    }

    /// Takes the delivery that gives its place to a new one. It is the head of no lane.
    pub(crate) fn take_oldest(&self) -> Option<QueuedDelivery> {
        self.pop_fresh().or_else(|| self.lanes.get()?.take_oldest())
    }

    /// Takes the leased deliveries that are due; those that were tried already only if `tried`. They may be heads of lanes.
    pub(crate) fn take_due_leases(&self, tried: bool) -> Vec<QueuedDelivery> {
        let due = (0..self.due.len()).map_while(|_| self.due.pop()).inspect(|_| {
            self.due_len.fetch_sub(1, Ordering::AcqRel);
        });
        let (leased, rest): (Vec<_>, Vec<_>) = due.partition(|it| it.lease().is_some() && (tried || it.attempts == 0));
        rest.into_iter().for_each(|delivery| self.push_due(delivery));
        leased
    }

    /// Takes the leased deliveries that are parked: no lane loses its head.
    pub(crate) fn take_parked_leases(&self) -> Vec<QueuedDelivery> {
        self.lanes.get().map(|lanes| lanes.take_parked_leases()).unwrap_or_default()
    }

    /// Takes everything that is queued, parked or due.
    pub(crate) fn take_all(&self) -> Vec<QueuedDelivery> {
        let due = std::iter::from_fn(|| self.due.pop()).inspect(|_| {
            self.due_len.fetch_sub(1, Ordering::AcqRel);
        });
        let fresh = std::iter::from_fn(|| self.pop_fresh());
        let lanes = self.lanes.get().map(|lanes| lanes.take_all());
        due.chain(fresh).chain(lanes.into_iter().flatten()).collect()
    }
}
