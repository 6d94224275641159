//! The bounded store of this process: every open event, and the latest completed and failed ones.
//!
//! The store has two generations. The **ring** holds the latest events in publish order. An id made by this process
//! carries a number that leads to the record by an array lookup, without a hash. A record that leaves the ring moves to
//! the **aged** generation (`aged`), an LRU, if it is open, failed, or was read. Any other is dropped, or reused if
//! nothing else holds it.
//!
//! `max_events` bounds the terminal events of both generations together. The ring grows with the open events, up to
//! [`MAX_BACKLOG`] slots beyond `max_events`: an open event moves to the aged generation only if later events fill the
//! ring. A publish makes room for itself. Open events are measured once in 64 positions (by each publish in a small
//! store), before each read, and by the timer; between two measures settled events may exceed the bound, for about a
//! second at most.
//!
//! Lock order: a block of the ring, then the aged generation or a shard of `unindexed`; never two blocks.

mod aged;
mod dead_letters;
mod length;
mod query;
mod record;
mod ring;
mod stock;
mod sync_wait;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;
use thread_local::ThreadLocal;

use crate::event::{Event, EventId};
use aged::Aged;
pub(crate) use dead_letters::DeadLetters;
pub(crate) use record::{Progress, Record, StatusSource};
use ring::{Ring, Slot};
use stock::Stock;
pub(crate) use sync_wait::SyncWait;

/// A shared record. The `Arc` has no weak count, so one load shows whether the reference is the only one.
pub(crate) type SharedRecord = triomphe::Arc<Record>;

/// How many open events the ring holds beyond `max_events`. Further open events move to the aged generation.
const MAX_BACKLOG: usize = 65_536;
/// A store with at least this `max_events` is large: a publisher touches shared state once per run of events. In return
/// the bounds hold to within a run, and the events of several publishers are evicted in the order of their runs.
const LARGE: usize = 4_096;
/// How many positions a thread takes at once in a large store, at most; also the number of slots that share a lock.
const RUN: u64 = 32;

/// The occupant of a position that an id maps to.
enum Occupant {
    Present(SharedRecord),
    /// The publisher that claimed the position has not filled it yet. It waits for no other thread before it does.
    Unfilled,
    Gone,
}

#[derive(Debug)]
pub(crate) struct Store {
    max_events: u64,
    ring: Ring,
    stocks: ThreadLocal<RefCell<Stock>>,
    /// Open events at the last measure, or a few more.
    open: AtomicU64,
    /// Number of an id, modulo the length → the lower 32 bits of its position. A hint: the id of the record decides.
    index: Box<[AtomicU32]>,
    /// Positions of ids that the index cannot hold: ids of other origin, and numbers whose index entry belongs to
    /// another record that is still in the ring.
    unindexed: DashMap<EventId, u64>,
    /// The highest number of an id that may be in `unindexed` or aged. Higher numbers are not looked up there.
    highest_unindexed: AtomicU64,
    aged: Aged,
}

impl Store {
    pub(crate) fn new(max_events: usize, max_in_flight: usize) -> Self {
        let len = max_events + max_in_flight.min(MAX_BACKLOG);
        let ring = Ring::new(len as u64, if max_events < LARGE { 1 } else { RUN });
        Self {
            max_events: max_events as u64,
            index: (0..ring.len().next_power_of_two().max(64)).map(|_| AtomicU32::new(0)).collect(),
            ring,
            stocks: ThreadLocal::new(),
            open: AtomicU64::new(0),
            unindexed: DashMap::new(),
            highest_unindexed: AtomicU64::new(0),
            aged: Aged::new(max_events / 2),
        }
    }

    /// An upper bound of the number of events stored so far. Costs two loads.
    pub(crate) fn accepted_at_most(&self) -> u64 {
        self.ring.used_at_most()
    }

    /// Stores an event with its number of deliveries, or returns it with the record that already has its id. `open`
    /// returns the number of open events. Call [`find`](Self::find) first, so that only concurrent publishers of an id
    /// collide here.
    pub(crate) fn put(
        &self,
        event: Event,
        deliveries: u32,
        source: StatusSource<'_>,
        open: impl Fn() -> u64,
    ) -> Result<SharedRecord, (Event, SharedRecord)> {
        let mut stock = self.stocks.get_or_default().borrow_mut();
        loop {
            let position = stock.position(&self.ring).unwrap_or_else(|| self.restock(&mut stock, deliveries, &open));
            if let Err(existing) = self.claim(event.id(), position) {
                return Err((event, existing));
            }
            stock.advance();
            let mut slot = self.ring.slot(position);
            if slot.filled > position {
                // Other threads went once around the ring while this one was delayed: start over with a new position.
                drop(slot);
                self.disclaim(event.id(), position);
                self.ring.give_up(1);
                continue;
            }
            // Usually vacant, unless more than `SLACK` publishers have taken runs and not evicted yet.
            self.leave(&mut slot);
            let record = stock.record(event, deliveries, source);
            slot.record = Some(SharedRecord::clone(&record));
            slot.filled = position + 1;
            return Ok(record);
        }
    }

    /// Takes new positions from the ring and makes room for them. Returns the first.
    fn restock(&self, stock: &mut Stock, deliveries: u32, open: impl Fn() -> u64) -> u64 {
        let taken = stock.refill(&self.ring).clone();
        if self.wants_measure(&taken) {
            self.measure(open());
        }
        self.make_room(&taken, deliveries, |record| stock.keep(record));
        taken.start
    }

    /// Notes that an open record has become terminal.
    pub(crate) fn closed(&self, record: &SharedRecord, progress: Progress) {
        if progress.is_aged() {
            self.aged.closed(record);
        }
    }

    /// Notes that a terminal record is open again. Adds it if it had left the store, which holds every open event.
    pub(crate) fn reopened(&self, record: &SharedRecord) {
        let is_stored = self.find(record.event.id()).is_some_and(|found| SharedRecord::ptr_eq(&found, record));
        if !is_stored || record.progress().is_aged() {
            self.raise_highest_unindexed(record.event.id());
            self.aged.reopened(record);
        }
    }

    /// The record with this id, if it is stored.
    pub(crate) fn find(&self, id: &EventId) -> Option<SharedRecord> {
        if let Some(number) = id.local_sequence() {
            let head = self.ring.head();
            let hint = position_near(head, self.index_of(number).load(Ordering::Acquire));
            // For a new id the hint is usually a position that has left the ring, and the slot need not be locked.
            if hint >= self.ring.tail()
                && let Some(record) = self.at(hint, id)
            {
                return Some(record);
            }
            if number > self.highest_unindexed.load(Ordering::Acquire) {
                return None;
            }
        }
        self.find_unindexed(id)
    }

    /// The event with its progress. The call counts as a use: it keeps the event when others are evicted.
    pub(crate) fn get(&self, id: &EventId) -> Option<Event> {
        let record = self.find(id)?;
        record.mark_read();
        if record.progress().is_aged() {
            self.aged.touch(id);
        }
        Some(record.snapshot())
    }

    /// Removes completed and failed events that were created before a wall time. Returns their number.
    pub(crate) fn clean_up(&self, created_before: u64) -> usize {
        let mut removed = 0;
        for position in self.ring.positions() {
            let mut slot = self.ring.slot(position);
            let expired = slot
                .record
                .take_if(|record| !record.progress().is_open() && record.event.created_nanos() < created_before);
            if let Some(record) = expired {
                removed += 1;
                self.unmap_unindexed(record.event.id(), slot.filled - 1);
            }
        }
        removed + self.aged.clean_up(created_before)
    }

    /// Calls `visit` with each record, in no order and with no lock held. A record that moves to the aged generation
    /// meanwhile may be visited twice.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&SharedRecord)) {
        for position in self.ring.positions() {
            let record = self.ring.slot(position).record.clone();
            if let Some(record) = record {
                visit(&record);
            }
        }
        self.aged.for_each(visit);
    }

    fn index_of(&self, number: u64) -> &AtomicU32 {
        &self.index[number as usize & (self.index.len() - 1)]
    }

    /// The record at a position, if it is still there and has this id.
    fn at(&self, position: u64, id: &EventId) -> Option<SharedRecord> {
        let slot = self.ring.slot(position);
        let record = slot.record.as_ref().filter(|_| slot.filled == position + 1)?;
        (record.event.id() == id).then(|| SharedRecord::clone(record))
    }

    /// The record of an id that is in `unindexed` or aged.
    fn find_unindexed(&self, id: &EventId) -> Option<SharedRecord> {
        // The guard of the map is dropped before the slot is locked.
        let position = self.unindexed.get(id).map(|position| *position);
        position.and_then(|position| self.at(position, id)).or_else(|| self.aged.find(id))
    }

    fn occupant(&self, position: u64) -> Occupant {
        let slot = self.ring.slot(position);
        match &slot.record {
            Some(record) if slot.filled == position + 1 => Occupant::Present(SharedRecord::clone(record)),
            _ if slot.filled > position => Occupant::Gone,
            _ => Occupant::Unfilled,
        }
    }

    /// Maps an id to `position`, or returns the record that already has the id.
    fn claim(&self, id: &EventId, position: u64) -> Result<(), SharedRecord> {
        let Some(number) = id.local_sequence() else { return self.claim_unindexed(id, position) };
        let entry = self.index_of(number);
        loop {
            let current = entry.load(Ordering::Acquire);
            let holder = position_near(position, current);
            if holder != position && self.ring.contains(holder) {
                match self.occupant(holder) {
                    Occupant::Present(record) if record.event.id() == id => return Err(record),
                    // Another number shares the index entry: the older record keeps it.
                    Occupant::Present(_) => {
                        self.claim_unindexed(id, position)?;
                        if entry.load(Ordering::SeqCst) == current
                            && matches!(self.occupant(holder), Occupant::Present(_))
                        {
                            return Ok(());
                        }
                        // The older record has left meanwhile: another publisher of this id may have taken the entry.
                        self.disclaim(id, position);
                        continue;
                    }
                    Occupant::Unfilled => {
                        std::thread::yield_now();
                        continue;
                    }
                    Occupant::Gone => {}
                }
            }
            if number <= self.highest_unindexed.load(Ordering::Acquire) {
                let unindexed = self.unindexed.get(id).map(|at| *at);
                match unindexed.map(|at| (at, self.occupant(at))) {
                    Some((_, Occupant::Present(existing))) => return Err(existing),
                    Some((_, Occupant::Unfilled)) => {
                        std::thread::yield_now();
                        continue;
                    }
                    Some((at, Occupant::Gone)) => self.disclaim(id, at),
                    None => {}
                }
                if let Some(existing) = self.aged.find(id) {
                    return Err(existing);
                }
            }
            if entry.compare_exchange(current, position as u32, Ordering::SeqCst, Ordering::Relaxed).is_err() {
                continue;
            }
            // This thread writes the entry, then reads `unindexed`. A publisher of the same id that found the entry in
            // use writes `unindexed`, then reads the entry (SeqCst on the entry and `highest_unindexed`, the lock of
            // the map's shard). At least one of them sees the other and takes its claim back.
            if number <= self.highest_unindexed.load(Ordering::SeqCst) && self.unindexed.contains_key(id) {
                self.disclaim_index(number, position);
                std::thread::yield_now();
                continue;
            }
            return Ok(());
        }
    }

    fn claim_unindexed(&self, id: &EventId, position: u64) -> Result<(), SharedRecord> {
        self.raise_highest_unindexed(id);
        loop {
            let holder = *self.unindexed.entry(id.clone()).or_insert(position);
            if holder == position {
                return match self.aged.find(id) {
                    None => Ok(()),
                    Some(existing) => {
                        self.disclaim(id, position);
                        Err(existing)
                    }
                };
            }
            match self.occupant(holder) {
                Occupant::Present(record) => return Err(record),
                Occupant::Unfilled => std::thread::yield_now(),
                // The holder has left the ring; remove its mapping.
                Occupant::Gone => self.disclaim(id, holder),
            }
        }
    }

    /// Removes the mapping of an id to `position`.
    fn disclaim(&self, id: &EventId, position: u64) {
        if let Some(number) = id.local_sequence() {
            self.disclaim_index(number, position);
        }
        self.unindexed.remove_if(id, |_, at| *at == position);
    }

    fn disclaim_index(&self, number: u64, position: u64) {
        // The exchange fails if the claim is in `unindexed`, or was overwritten.
        let _ = self.index_of(number).compare_exchange(position as u32, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Empties a slot whose event leaves the ring, and moves the event to the aged generation if it is worth keeping.
    /// Returns the record.
    fn leave(&self, slot: &mut Slot) -> Option<SharedRecord> {
        let record = slot.record.take()?;
        if record.progress().is_worth_keeping() {
            self.raise_highest_unindexed(record.event.id());
            self.aged.admit(&record);
        }
        self.unmap_unindexed(record.event.id(), slot.filled - 1);
        Some(record)
    }

    /// Removes the entry in `unindexed` of a record that leaves the ring. An index entry is left to be overwritten.
    fn unmap_unindexed(&self, id: &EventId, position: u64) {
        let may_be_unindexed = match id.local_sequence() {
            Some(number) => {
                number <= self.highest_unindexed.load(Ordering::Acquire)
                    && self.index_of(number).load(Ordering::Acquire) != position as u32
            }
            None => true,
        };
        if may_be_unindexed {
            self.unindexed.remove_if(id, |_, at| *at == position);
        }
    }

    fn raise_highest_unindexed(&self, id: &EventId) {
        if let Some(number) = id.local_sequence()
            && number > self.highest_unindexed.load(Ordering::SeqCst)
        {
            self.highest_unindexed.fetch_max(number, Ordering::SeqCst);
        }
    }
}

/// The position nearest to `other` whose lower 32 bits are `lower`.
fn position_near(other: u64, lower: u32) -> u64 {
    let distance = lower.wrapping_sub(other as u32) as i32;
    other.wrapping_add_signed(i64::from(distance))
}
