//! The bounded store of this process: every open event, and the latest that are completed or failed.
//!
//! Two generations. The **ring** holds the young in publish order; a record is found by the number that our ids carry
//! (an array lookup, no hash), and the record that leaves it is used again if nobody holds it. What leaves the ring
//! while it is open, failed, or was read moves to the **aged** generation (`aged`), an LRU; everything else is gone.
//!
//! `max_events` bounds what is terminal, in both generations together. The ring is as long as that and what is open take,
//! up to [`MAX_BACKLOG`] more than `max_events`, so that a backlog costs nothing: an open event moves to the aged
//! generation only if later ones fill the store. A publish makes room for itself. How many events are open is measured
//! now and then (each time in a small store) and before each reading; what is settled between two measures may pass the
//! bound until the next, for a quarter of a second at most.
//!
//! Lock order: a block of the ring, then the aged generation or a shard of `strays`; never two blocks, and nothing is called
//! back under a lock.

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

/// A record as all hold it: without weak references, so that it costs nothing to see that nobody else holds it.
pub(crate) type SharedRecord = triomphe::Arc<Record>;

/// How many open events the ring holds beyond `max_events`. What is open beyond that moves to the aged generation.
const MAX_BACKLOG: usize = 65_536;
/// From so many `max_events` on, a store is large: what publishers share is touched once for many events, at the price that
/// bounds are kept by the run, and that the order of eviction among several publishers is the order of their runs.
const LARGE: usize = 4_096;
/// How many positions a thread takes at once in a large store.
const RUN: u64 = 32;

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
    max_events: u64,
    ring: Ring,
    stocks: ThreadLocal<RefCell<Stock>>,
    /// How many events were open at the last measure, or a few more.
    open: AtomicU64,
    /// Number in the id, modulo the length → the lower half of the position. A hint: the whole id in the slot decides.
    index: Box<[AtomicU32]>,
    /// Positions of ids that the index can't hold: those of other origin, and numbers whose place in the index is taken
    /// by a record that is still in the ring.
    strays: DashMap<EventId, u64>,
    /// The highest number in our ids that may be among the strays or aged; newer ids need not be looked up there.
    highest_stray: AtomicU64,
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
            strays: DashMap::new(),
            highest_stray: AtomicU64::new(0),
            aged: Aged::new(max_events / 2),
        }
    }

    /// An upper bound of the number of events put so far that costs two loads.
    pub(crate) fn accepted_at_most(&self) -> u64 {
        self.ring.used_at_most()
    }

    /// Stores an event with its number of deliveries, or hands it back with the record that has its id already. `open` tells
    /// how many events are open. Ask [`find`](Self::find) first: here only publishers of the same id at the same moment
    /// should meet.
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
            if let Err(known) = self.claim(event.id(), position) {
                return Err((event, known));
            }
            stock.advance();
            let mut slot = self.ring.slot(position);
            if slot.filled > position {
                // This thread was held up while others went once around the ring: start over with a fresh position.
                drop(slot);
                self.disclaim(event.id(), position);
                self.ring.give_up(1);
                continue;
            }
            // Mostly vacant: only what is open can still be here, when the ring is as long as it gets.
            self.leave(&mut slot);
            let record = stock.record(event, deliveries, source);
            slot.record = Some(SharedRecord::clone(&record));
            slot.filled = position + 1;
            return Ok(record);
        }
    }

    /// Takes new positions, and makes room for them. Returns the first.
    fn restock(&self, stock: &mut Stock, deliveries: u32, open: impl Fn() -> u64) -> u64 {
        let taken = stock.refill(&self.ring).clone();
        if self.wants_measure(&taken) {
            self.measure(open());
        }
        self.make_room(&taken, deliveries, |record| stock.keep(record));
        taken.start
    }

    /// A record that was open has become terminal.
    pub(crate) fn closed(&self, record: &SharedRecord, progress: Progress) {
        if progress.is_aged() {
            self.aged.closed(record);
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
            let head = self.ring.head();
            let hint = position_near(head, self.index_of(number).load(Ordering::Acquire));
            // For a new id the index mostly leads to a position that has left the ring: no need to look there.
            if hint >= self.ring.tail()
                && let Some(record) = self.at(hint, id)
            {
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
        for position in self.ring.positions() {
            let mut slot = self.ring.slot(position);
            let expired = slot
                .record
                .take_if(|record| !record.progress().is_open() && record.event.created_nanos() < created_before);
            if let Some(record) = expired {
                removed += 1;
                self.unmap_stray(record.event.id(), slot.filled - 1);
            }
        }
        removed + self.aged.clean_up(created_before)
    }

    /// Calls `visit` with each record, in no order; one that moves between the generations meanwhile may be seen twice.
    /// No lock is held during the call.
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

    /// The record at a position, if it is there and has this id.
    fn at(&self, position: u64, id: &EventId) -> Option<SharedRecord> {
        let slot = self.ring.slot(position);
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
        let slot = self.ring.slot(position);
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
            let holder = position_near(position, seen);
            if holder != position && self.ring.contains(holder) {
                match self.occupant(holder) {
                    Occupant::Here(record) if record.event.id() == id => return Err(record),
                    // A number that shares the place in the index: the older one keeps it.
                    Occupant::Here(_) => {
                        self.claim_stray(id, position)?;
                        if entry.load(Ordering::SeqCst) == seen && matches!(self.occupant(holder), Occupant::Here(_)) {
                            return Ok(());
                        }
                        // It has left meanwhile: another publisher of this id may have its place.
                        self.disclaim(id, position);
                        continue;
                    }
                    Occupant::Coming => {
                        std::thread::yield_now();
                        continue;
                    }
                    Occupant::Gone => {}
                }
            }
            if number <= self.highest_stray.load(Ordering::Acquire) {
                let stray = self.strays.get(id).map(|at| *at);
                match stray.map(|at| (at, self.occupant(at))) {
                    Some((_, Occupant::Here(known))) => return Err(known),
                    Some((_, Occupant::Coming)) => {
                        std::thread::yield_now();
                        continue;
                    }
                    Some((at, Occupant::Gone)) => self.disclaim(id, at),
                    None => {}
                }
                if let Some(known) = self.aged.find(id) {
                    return Err(known);
                }
            }
            if entry.compare_exchange(seen, position as u32, Ordering::SeqCst, Ordering::Relaxed).is_err() {
                continue;
            }
            // Another publisher of this id may have found the place taken: it looks at the place after it has claimed the id
            // among the strays, this looks there after it has taken the place. So not both keep their claims.
            if number <= self.highest_stray.load(Ordering::SeqCst) && self.strays.contains_key(id) {
                self.disclaim_index(number, position);
                std::thread::yield_now();
                continue;
            }
            return Ok(());
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

    /// Takes a claim back.
    fn disclaim(&self, id: &EventId, position: u64) {
        if let Some(number) = id.local_sequence() {
            self.disclaim_index(number, position);
        }
        self.strays.remove_if(id, |_, at| *at == position);
    }

    fn disclaim_index(&self, number: u64, position: u64) {
        // Failure means that the claim stands among the strays, or was overwritten.
        let _ = self.index_of(number).compare_exchange(position as u32, 0, Ordering::AcqRel, Ordering::Relaxed);
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
                    && self.index_of(number).load(Ordering::Acquire) != position as u32
            }
            None => true,
        };
        if may_be_stray {
            self.strays.remove_if(id, |_, at| *at == position);
        }
    }

    fn raise_highest_stray(&self, id: &EventId) {
        if let Some(number) = id.local_sequence()
            && number > self.highest_stray.load(Ordering::SeqCst)
        {
            self.highest_stray.fetch_max(number, Ordering::SeqCst);
        }
    }
}

/// The position with this lower half that is nearest to another one.
fn position_near(other: u64, lower: u32) -> u64 {
    let distance = lower.wrapping_sub(other as u32) as i32;
    other.wrapping_add_signed(i64::from(distance))
}
