//! The inbox of one subscription: a bounded queue, the lanes behind it, and the deliveries that are due.
//!
//! A publisher reserves a *place* before the event is stored, and pushes the delivery after that. A worker releases the
//! place when the first attempt begins. Places are the difference of two counters that only grow, one written by
//! publishers and one by workers, so neither side takes the other's cache line at every event. Which worker runs a
//! delivery is decided in `subscription`.

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

/// A blocked publisher is woken when a quarter of the places are free, or this many.
const MAX_WAKE_BATCH: u64 = 256;
/// How many places are released between two checks for that.
const CHECK_EVERY: u64 = 32;
/// How long a blocked publisher waits for that many places. After that, one is enough.
const BATCH_WAIT: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(crate) struct Inbox {
    capacity: u64,
    max_waiting: usize,
    publishers: CachePadded<PublisherSide>,
    /// Places released so far. Written by workers.
    released: CachePadded<AtomicU64>,
    /// Retries that wait, and deliveries parked behind them.
    waiting: AtomicUsize,
    /// Length of `due`, so that the common case costs one load.
    due_len: AtomicUsize,
    /// All deliveries are in one lane, as if their events had the same key.
    ordered: bool,
    /// Deliveries that arrived before the first one with a key. Allocated by the first arrival, so an unused
    /// subscription costs little. Each element holds a place, so a push always finds room.
    unkeyed: OnceLock<ArrayQueue<SharedRecord>>,
    /// From the first key on, all deliveries arrive here.
    lanes: OnceLock<Box<Lanes>>,
    /// Deliveries that run first: retries that are due, heads of lanes, requeued dead letters, leased deliveries.
    due: SegQueue<QueuedDelivery>,
    waiters: Capacity,
}

#[derive(Debug, Default)]
struct PublisherSide {
    /// Places reserved so far.
    taken: AtomicU64,
    /// An earlier value of `released`; read again only when the queue seems full.
    last_released: AtomicU64,
}

/// The capacity of the queue, as publishers wait for it: those that wait for a place.
///
/// A wake-up costs as much as hundreds of quick deliveries, so a publisher first waits for many places at once
/// ([`MAX_WAKE_BATCH`]), for at most [`BATCH_WAIT`], and then for a single one.
#[derive(Debug, Default)]
struct Capacity {
    count: AtomicUsize,
    /// How many of them wait for a single place.
    need_one: AtomicUsize,
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
            unkeyed: OnceLock::new(),
            lanes: OnceLock::new(),
            due: SegQueue::new(),
            waiters: Capacity::default(),
        }
    }

    /// Places that are reserved or hold a delivery.
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

    /// Reserves a place; false if none is free.
    pub(crate) fn reserve(&self) -> bool {
        if self.waiting.load(Ordering::Relaxed) >= self.max_waiting {
            return false;
        }
        let side = &*self.publishers;
        let mut taken = side.taken.load(Ordering::Relaxed);
        loop {
            if taken.saturating_sub(side.last_released.load(Ordering::Relaxed)) >= self.capacity {
                let released = self.released.load(Ordering::Acquire);
                side.last_released.store(released, Ordering::Relaxed);
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

    pub(crate) fn release(&self, places: u64) {
        let released = self.released.fetch_add(places, Ordering::SeqCst);
        if self.waiters.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        // Not at each call: the check reads `taken`, a cache line that publishers write.
        let checks = || released.is_multiple_of(self.wake_batch().min(CHECK_EVERY));
        if self.waiters.need_one.load(Ordering::SeqCst) > 0 || checks() && self.has_wake_batch() {
            self.wake_publishers();
        }
    }

    /// How many free places are worth a wake-up of a publisher.
    fn wake_batch(&self) -> u64 {
        (self.capacity / 4).clamp(1, MAX_WAKE_BATCH)
    }

    fn has_wake_batch(&self) -> bool {
        !self.is_full_of_waiting() && self.queued() + self.wake_batch() <= self.capacity
    }

    /// Blocks until a place may be free, at most until `deadline`. False when the deadline has passed.
    pub(crate) fn wait_for_room(&self, clock: &Clock, deadline: u64, give_up: impl Fn() -> bool) -> bool {
        self.waiters.count.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.waiters.gate.lock();
        let batch_wait = BATCH_WAIT.min(Duration::from_nanos(deadline.saturating_sub(clock.now())));
        if !self.has_wake_batch() && !give_up() {
            self.waiters.changed.wait_for(&mut guard, batch_wait);
        }
        self.waiters.need_one.fetch_add(1, Ordering::SeqCst);
        let mut in_time = true;
        while in_time && self.is_full() && !give_up() {
            in_time = clock.wait(&self.waiters.changed, &mut guard, deadline);
        }
        drop(guard);
        self.waiters.need_one.fetch_sub(1, Ordering::SeqCst);
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
        in_time
    }

    pub(crate) fn wake_publishers(&self) {
        drop(self.waiters.gate.lock());
        self.waiters.changed.notify_all();
    }

    pub(crate) fn is_half_empty(&self) -> bool {
        !self.is_full_of_waiting() && self.queued() <= self.capacity / 2
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full_of_waiting() || self.queued() >= self.capacity
    }

    /// Whether `max_waiting` is reached: the inbox is full, whatever places of the queue are free.
    pub(crate) fn is_full_of_waiting(&self) -> bool {
        self.waiting() >= self.max_waiting
    }

    /// The lane of an event, if it has a key or the subscription is ordered.
    pub(crate) fn lane(&self, event: &Event) -> Option<LaneKey> {
        if self.ordered { Some(LaneKey::ALL) } else { event.key().map(LaneKey::of) }
    }

    /// Enqueues a delivery into the place that was reserved for it. It enters its lane when a worker takes it.
    pub(crate) fn push(&self, record: SharedRecord) {
        let keyed = self.ordered || record.event.key().is_some();
        let lanes = if keyed { Some(self.lanes()) } else { self.lanes.get().map(|lanes| &**lanes) };
        let pushed = match lanes {
            Some(lanes) => lanes.push(record),
            None => self.unkeyed.get_or_init(|| ArrayQueue::new(self.capacity as usize)).push(record),
        };
        if let Err(record) = pushed {
            self.enter(QueuedDelivery::new(record, Place::Queue));
        }
    }

    /// Enqueues a delivery ahead of the queue, through its lane. True if it can run now, else it is parked.
    pub(crate) fn enter(&self, delivery: QueuedDelivery) -> bool {
        let head = self.enter_lane(delivery);
        head.is_some_and(|head| {
            self.push_due(head);
            true
        })
    }

    /// Enters the lane of a delivery. Returns the delivery if it can run now, else it is parked.
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

    /// Whether a new delivery of this lane would be the next to run.
    pub(crate) fn is_next(&self, lane: Option<LaneKey>) -> bool {
        !self.has_ready() && self.is_free(lane)
    }

    /// Whether no delivery of this lane runs or waits for a retry.
    pub(crate) fn is_free(&self, lane: Option<LaneKey>) -> bool {
        lane.is_none_or(|lane| self.lanes.get().is_none_or(|lanes| lanes.is_free(lane)))
    }

    /// Whether a delivery waits for a worker. Its lane may still be busy.
    pub(crate) fn has_ready(&self) -> bool {
        self.unkeyed.get().is_some_and(|unkeyed| !unkeyed.is_empty())
            || self.lanes.get().is_some_and(|lanes| lanes.has_arrived())
            || self.due_len.load(Ordering::SeqCst) > 0
    }

    /// How many deliveries wait for a worker.
    pub(crate) fn ready_len(&self) -> usize {
        let unkeyed = self.unkeyed.get().map_or(0, ArrayQueue::len);
        unkeyed + self.lanes.get().map_or(0, |lanes| lanes.arrived()) + self.due_len.load(Ordering::SeqCst)
    }

    /// Takes the next delivery to run, those in `due` first.
    pub(crate) fn pop(&self) -> Option<QueuedDelivery> {
        if self.due_len.load(Ordering::Relaxed) > 0
            && let Some(delivery) = self.due.pop()
        {
            self.due_len.fetch_sub(1, Ordering::AcqRel);
            return Some(delivery);
        }
        let Some(lanes) = self.lanes.get() else { return self.pop_unkeyed() };
        // Usually empty once the first delivery with a key has come.
        let unkeyed = self.unkeyed.get().filter(|unkeyed| !unkeyed.is_empty()).and_then(|_| self.pop_unkeyed());
        unkeyed.or_else(|| self.taken(lanes.take(|delivery| self.lane(&delivery.record.event), &self.waiting)))
    }

    fn pop_unkeyed(&self) -> Option<QueuedDelivery> {
        let record = self.unkeyed.get()?.pop()?;
        Some(QueuedDelivery::new(record, Place::Queue))
    }

    /// Releases the place of a delivery: its attempt begins, or it is settled without one.
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

    /// Counts a failed delivery as waiting for its retry, and with it the deliveries parked behind it in its lane.
    pub(crate) fn start_waiting(&self, delivery: &mut QueuedDelivery) {
        delivery.place = Place::Waiting;
        let moved = delivery.lane.map_or(0, |lane| self.lanes().head_waits(lane));
        self.waiting.fetch_add(1 + moved, Ordering::AcqRel);
        if moved > 0 {
            self.release(moved as u64);
        }
    }

    /// Enqueues a delivery whose retry is due.
    pub(crate) fn end_waiting(&self, delivery: QueuedDelivery) {
        if let Some(lane) = delivery.lane {
            self.lanes().head_returns(lane);
        }
        self.push_due(delivery);
    }

    /// Enqueues a delivery that can run at once, ahead of the queue.
    pub(crate) fn push_due(&self, delivery: QueuedDelivery) {
        self.due_len.fetch_add(1, Ordering::SeqCst);
        self.due.push(delivery);
    }

    /// Notes that the head of a lane is settled. True if another delivery of the lane can run now.
    pub(crate) fn advance(&self, lane: LaneKey) -> bool {
        let next = self.lanes().advance(lane);
        next.is_some_and(|next| {
            self.push_due(next);
            true
        })
    }

    /// Takes the oldest delivery that holds a place of the queue and heads no lane, to give its place to a new one.
    pub(crate) fn take_oldest(&self) -> Option<QueuedDelivery> {
        self.pop_unkeyed().or_else(|| self.lanes.get()?.take_oldest())
    }

    /// Takes the leased deliveries in `due`, which may head lanes; those with earlier attempts only if `tried`.
    pub(crate) fn take_due_leases(&self, tried: bool) -> Vec<QueuedDelivery> {
        let due = (0..self.due.len()).map_while(|_| self.due.pop()).inspect(|_| {
            self.due_len.fetch_sub(1, Ordering::AcqRel);
        });
        let (leased, rest): (Vec<_>, Vec<_>) = due.partition(|it| it.lease().is_some() && (tried || it.attempts == 0));
        rest.into_iter().for_each(|delivery| self.push_due(delivery));
        leased
    }

    /// Takes the leased deliveries that are parked. Every lane keeps its head.
    pub(crate) fn take_parked_leases(&self) -> Vec<QueuedDelivery> {
        self.lanes.get().map(|lanes| lanes.take_parked_leases()).unwrap_or_default()
    }

    /// Takes all deliveries that are queued, parked or due.
    pub(crate) fn take_all(&self) -> Vec<QueuedDelivery> {
        let due = std::iter::from_fn(|| self.due.pop()).inspect(|_| {
            self.due_len.fetch_sub(1, Ordering::AcqRel);
        });
        let unkeyed = std::iter::from_fn(|| self.pop_unkeyed());
        let lanes = self.lanes.get().map(|lanes| lanes.take_all());
        due.chain(unkeyed).chain(lanes.into_iter().flatten()).collect()
    }
}
