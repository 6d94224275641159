//! The bounded store of this process: every open event, and the latest that are completed or failed.
//!
//! Two generations. The **ring** holds the young in publish order; a record is found by the number that our ids carry
//! (an array lookup, no hash), and the record that leaves a slot is reused in place if nobody holds it. What leaves
//! the ring while it is open, failed, or was read moves to the **aged** generation (`aged`), an LRU; everything else is
//! gone. `max_events` bounds the ring and the terminal part of the aged generation together: each place that the aged
//! generation takes, at most half, shortens the ring.
//!
//! Lock order: `tail`, then a slot, then the aged generation or a shard of `strays`; never two slots, and nothing is
//! called back under a lock.

mod aged;
mod query;
mod record;

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam_utils::CachePadded;
use dashmap::DashMap;
use parking_lot::Mutex;

use crate::event::{Event, EventId};
use aged::Aged;
pub(crate) use record::{By, Progress, Record};

/// A record as all hold it: without weak references, so that it costs nothing to see that nobody else holds it.
pub(crate) type SharedRecord = triomphe::Arc<Record>;

/// A slot of the ring. Without a record it is vacant; `filled` tells whether its position was used before that.
#[derive(Debug)]
struct Slot {
    /// The position that last lived here, plus 1; 0 = none yet.
    filled: u64,
    record: Option<SharedRecord>,
}

/// What is found at a position that an id leads to.
enum Occupant {
    Here(SharedRecord),
    /// The publisher that claimed the position has not filled it yet. It waits for nobody and is a few steps away.
    Coming,
    Gone,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Store {
    slots: Box<[Mutex<Slot>]>,
    /// The next position. Positions count publishes; position `p` lives in slot `p % slots.len()`.
    head: CachePadded<AtomicU64>,
    /// Positions that were taken and not used, because the id turned out to be known.
    unused: AtomicU64,
    /// Number in the id, modulo the length → position + 1. A hint: the whole id in the slot decides.
    index: Box<[AtomicU64]>,
    /// Positions of ids that the index can't hold: those of other origin, and numbers whose place in the index is taken
    /// by a record that is still in the ring.
    strays: DashMap<EventId, u64>,
    /// The highest number in our ids that may be among the strays or aged; newer ids need not be looked up there.
    highest_stray: AtomicU64,
    /// Every position below it has left the ring early, to make room for the aged generation.
    tail: Mutex<u64>,
    /// What `tail` was when its lock was last let go.
    tail_seen: AtomicU64,
    aged: Aged,
}

impl Store {
    pub(crate) fn new(max_events: usize) -> Self {
        let index_len = (2 * max_events).next_power_of_two().max(64);
        Self {
            slots: (0..max_events).map(|_| Mutex::new(Slot { filled: 0, record: None })).collect(),
            head: CachePadded::new(AtomicU64::new(0)),
            unused: AtomicU64::new(0),
            index: (0..index_len).map(|_| AtomicU64::new(0)).collect(),
            strays: DashMap::new(),
            highest_stray: AtomicU64::new(0),
            tail: Mutex::new(0),
            tail_seen: AtomicU64::new(0),
            aged: Aged::new(max_events / 2),
        }
    }

    /// Events put so far.
    pub(crate) fn accepted(&self) -> u64 {
        // `unused` first: it never exceeds `head`.
        let unused = self.unused.load(Ordering::SeqCst);
        self.head.load(Ordering::SeqCst) - unused
    }

    /// An upper bound of [`accepted`](Self::accepted) that costs one load.
    pub(crate) fn accepted_at_most(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Stores an event with its number of deliveries, or hands it back with the record that has its id already. Ask
    /// [`find`](Self::find) first: only publishers of the same id at the same moment may meet here, at the price of a
    /// position.
    pub(crate) fn put(&self, event: Event, deliveries: u32, by: By<'_>) -> Result<SharedRecord, (Event, SharedRecord)> {
        loop {
            let position = self.head.fetch_add(1, Ordering::SeqCst);
            if let Err(known) = self.claim(event.id(), position) {
                self.waste(position);
                return Err((event, known));
            }
            let mut slot = self.slot(position).lock();
            if slot.filled > position {
                // This thread was held up while others went once around the ring: start over with a fresh position.
                drop(slot);
                self.disclaim(event.id(), position);
                self.unused.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let record = match self.leave(&mut slot) {
                Some(mut left) => match SharedRecord::get_mut(&mut left) {
                    Some(unshared) => {
                        unshared.reuse(event, deliveries, by);
                        left
                    }
                    None => SharedRecord::new(Record::new(event, deliveries, by)),
                },
                None => SharedRecord::new(Record::new(event, deliveries, by)),
            };
            slot.record = Some(SharedRecord::clone(&record));
            slot.filled = position + 1;
            drop(slot);
            self.trim();
            return Ok(record);
        }
    }

    /// A record that was open has become terminal.
    pub(crate) fn closed(&self, record: &SharedRecord, progress: Progress) {
        if progress.is_aged() {
            self.aged.closed(record);
            self.trim();
        }
    }

    /// A record that was terminal is open again. One that had left the store comes back: nothing open is untracked.
    pub(crate) fn reopened(&self, record: &SharedRecord) {
        let here = self.find(record.event.id()).is_some_and(|found| SharedRecord::ptr_eq(&found, record));
        if !here || record.progress().is_aged() {
            self.raise_highest_stray(record.event.id());
            self.aged.reopened(record);
        }
    }

    /// The record of a known id.
    pub(crate) fn find(&self, id: &EventId) -> Option<SharedRecord> {
        if let Some(number) = id.local_sequence() {
            let hint = self.index_of(number).load(Ordering::Acquire);
            // For a new id the index mostly leads to a position that has left the ring: no need to look there.
            let may_be_in_ring = hint + self.slots.len() as u64 > self.head.load(Ordering::Acquire);
            if may_be_in_ring && let Some(record) = hint.checked_sub(1).and_then(|position| self.at(position, id)) {
                return Some(record);
            }
            if number > self.highest_stray.load(Ordering::Acquire) {
                return None;
            }
        }
        self.find_stray(id)
    }

    /// The event with its progress; reading it counts as a use.
    pub(crate) fn get(&self, id: &EventId) -> Option<Event> {
        let record = self.find(id)?;
        record.mark_read();
        if record.progress().is_aged() {
            self.aged.touch(id);
        }
        Some(record.snapshot())
    }

    /// Removes completed and failed events that were created before a wall time. Returns how many.
    pub(crate) fn clean_up(&self, created_before: u64) -> usize {
        let mut removed = 0;
        for slot in &self.slots {
            let mut slot = slot.lock();
            let expired = slot
                .record
                .as_ref()
                .is_some_and(|record| !record.progress().is_open() && record.event.created_nanos() < created_before);
            if expired {
                removed += 1;
                let (position, record) = (slot.filled - 1, slot.record.take());
                if let Some(record) = record {
                    self.unmap_stray(record.event.id(), position);
                }
            }
        }
        removed + self.aged.clean_up(created_before)
    }

    /// Calls `visit` with each record, in no order; one that moves between the generations meanwhile may be seen twice.
    /// No lock is held during the call.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&SharedRecord)) {
        for slot in &self.slots {
            let record = slot.lock().record.clone();
            if let Some(record) = record {
                visit(&record);
            }
        }
        self.aged.for_each(visit);
    }

    fn slot(&self, position: u64) -> &Mutex<Slot> {
        &self.slots[(position % self.slots.len() as u64) as usize]
    }

    fn index_of(&self, number: u64) -> &AtomicU64 {
        &self.index[number as usize & (self.index.len() - 1)]
    }

    /// The record at a position, if it is there and has this id.
    fn at(&self, position: u64, id: &EventId) -> Option<SharedRecord> {
        let slot = self.slot(position).lock();
        let record = slot.record.as_ref().filter(|_| slot.filled == position + 1)?;
        (record.event.id() == id).then(|| SharedRecord::clone(record))
    }

    /// The record of an id that the index does not lead to.
    fn find_stray(&self, id: &EventId) -> Option<SharedRecord> {
        // The guard of the map is gone before the slot is locked.
        let position = self.strays.get(id).map(|position| *position);
        position.and_then(|position| self.at(position, id)).or_else(|| self.aged.find(id))
    }

    fn occupant(&self, position: u64) -> Occupant {
        let slot = self.slot(position).lock();
        match &slot.record {
            Some(record) if slot.filled == position + 1 => Occupant::Here(SharedRecord::clone(record)),
            _ if slot.filled > position => Occupant::Gone,
            _ => Occupant::Coming,
        }
    }

    /// Makes an id lead to `position`, or returns the record that has the id already.
    fn claim(&self, id: &EventId, position: u64) -> Result<(), SharedRecord> {
        let Some(number) = id.local_sequence() else { return self.claim_stray(id, position) };
        let entry = self.index_of(number);
        loop {
            let seen = entry.load(Ordering::Acquire);
            let may_be_in_ring = seen != 0 && seen + self.slots.len() as u64 > position;
            if may_be_in_ring && seen != position + 1 {
                match self.occupant(seen - 1) {
                    Occupant::Here(record) if record.event.id() == id => return Err(record),
                    // A number that shares the place in the index: the older one keeps it.
                    Occupant::Here(_) => return self.claim_stray(id, position),
                    Occupant::Coming => {
                        std::thread::yield_now();
                        continue;
                    }
                    Occupant::Gone => {}
                }
            }
            if number <= self.highest_stray.load(Ordering::Acquire)
                && let Some(known) = self.find_stray(id)
            {
                return Err(known);
            }
            if entry.compare_exchange(seen, position + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(());
            }
        }
    }

    fn claim_stray(&self, id: &EventId, position: u64) -> Result<(), SharedRecord> {
        self.raise_highest_stray(id);
        loop {
            let holder = *self.strays.entry(id.clone()).or_insert(position);
            if holder == position {
                return match self.aged.find(id) {
                    None => Ok(()),
                    Some(known) => {
                        self.disclaim(id, position);
                        Err(known)
                    }
                };
            }
            match self.occupant(holder) {
                Occupant::Here(record) => return Err(record),
                Occupant::Coming => std::thread::yield_now(),
                // It has left the ring; its mapping goes with it.
                Occupant::Gone => self.disclaim(id, holder),
            }
        }
    }

    /// Passes over a position that holds nothing: the ring moves on all the same.
    fn waste(&self, position: u64) {
        self.unused.fetch_add(1, Ordering::SeqCst);
        let mut slot = self.slot(position).lock();
        if slot.filled <= position {
            self.leave(&mut slot);
            slot.filled = position + 1;
        }
    }

    /// Takes a claim back.
    fn disclaim(&self, id: &EventId, position: u64) {
        if let Some(number) = id.local_sequence() {
            // Failure means that the claim stands among the strays, or was overwritten.
            let _ = self.index_of(number).compare_exchange(position + 1, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        self.strays.remove_if(id, |_, at| *at == position);
    }

    /// Empties a slot whose event leaves the ring: into the aged generation, or for good. Returns the record.
    fn leave(&self, slot: &mut Slot) -> Option<SharedRecord> {
        let record = slot.record.take()?;
        if record.progress().is_worth_keeping() {
            self.raise_highest_stray(record.event.id());
            self.aged.admit(&record);
        }
        self.unmap_stray(record.event.id(), slot.filled - 1);
        Some(record)
    }

    /// Forgets the mapping of a record that leaves the ring. A mapping of the index is left to be overwritten.
    fn unmap_stray(&self, id: &EventId, position: u64) {
        let may_be_stray = match id.local_sequence() {
            Some(number) => {
                number <= self.highest_stray.load(Ordering::Acquire)
                    && self.index_of(number).load(Ordering::Acquire) != position + 1
            }
            None => true,
        };
        if may_be_stray {
            self.strays.remove_if(id, |_, at| *at == position);
        }
    }

    /// Shortens the ring by the places that the aged generation takes. One thread does it for all: another one that comes
    /// meanwhile leaves it to the first, which looks again after it has let go of the lock.
    fn trim(&self) {
        loop {
            // In one total order with the counting there and with `head`: of two threads that meet, one sees the other.
            if self.aged.terminal() == 0 {
                return;
            }
            fence(Ordering::SeqCst);
            if self.tail_seen.load(Ordering::Relaxed) >= self.wanted_tail() {
                return;
            }
            let Some(mut tail) = self.tail.try_lock() else { return };
            *tail = (*tail).max(self.head.load(Ordering::SeqCst).saturating_sub(self.slots.len() as u64));
            while *tail < self.wanted_tail() {
                let mut slot = self.slot(*tail).lock();
                if slot.filled <= *tail {
                    // Its publisher is about to fill it, and trims after that.
                    break;
                }
                if slot.filled == *tail + 1 {
                    self.leave(&mut slot);
                }
                *tail += 1;
            }
            let unfilled = *tail < self.wanted_tail();
            self.tail_seen.store(*tail, Ordering::Relaxed);
            drop(tail);
            if unfilled {
                return;
            }
        }
    }

    /// Below this position, everything has to leave the ring.
    fn wanted_tail(&self) -> u64 {
        let keep = (self.slots.len() as u64).saturating_sub(self.aged.terminal() as u64);
        self.head.load(Ordering::SeqCst).saturating_sub(keep)
    }

    fn raise_highest_stray(&self, id: &EventId) {
        if let Some(number) = id.local_sequence()
            && number > self.highest_stray.load(Ordering::Relaxed)
        {
            self.highest_stray.fetch_max(number, Ordering::AcqRel);
        }
    }
}
