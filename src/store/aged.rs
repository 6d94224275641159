//! The aged generation of the store: events that were open, failed, or read when they left the ring.
//!
//! Open events stay until they are terminal. Terminal events form an LRU: `get` is a use, and beyond the capacity the
//! least recently used event is dropped. Records are ordered by id, so a scan can release the lock between steps.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use super::SharedRecord;
use crate::event::EventId;

/// How many records a scan visits per lock.
const SCAN_STEP: usize = 256;

#[derive(Debug)]
pub(super) struct Aged {
    records: Mutex<Records>,
    /// Number of records, readable without the lock.
    len: AtomicU64,
    capacity: usize,
}

#[derive(Debug)]
struct Records {
    by_id: BTreeMap<EventId, SharedRecord>,
    /// The terminal events, by use.
    terminal: LruCache<EventId, ()>,
}

impl Aged {
    /// `capacity` bounds the terminal events.
    pub(super) fn new(capacity: usize) -> Self {
        let records = Records { by_id: BTreeMap::new(), terminal: LruCache::unbounded() };
        Self { records: Mutex::new(records), len: AtomicU64::new(0), capacity }
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::SeqCst)
    }

    /// Adds a record that leaves the ring.
    pub(super) fn admit(&self, record: &SharedRecord) {
        let mut records = self.records.lock();
        let open = record.mark_aged().is_open();
        records.by_id.insert(record.event.id().clone(), SharedRecord::clone(record));
        if open {
            self.count(&records);
        } else {
            self.add_terminal(&mut records, record.event.id());
        }
    }

    /// Moves a record that has become terminal to the LRU, unless it was reopened since.
    pub(super) fn closed(&self, record: &SharedRecord) {
        let mut records = self.records.lock();
        if !record.progress().is_open() && records.by_id.contains_key(record.event.id()) {
            self.add_terminal(&mut records, record.event.id());
        }
    }

    /// Takes a reopened record out of the LRU, unless it was closed since. Adds the record if it is missing.
    pub(super) fn reopened(&self, record: &SharedRecord) {
        let mut records = self.records.lock();
        let open = record.mark_aged().is_open();
        records.by_id.insert(record.event.id().clone(), SharedRecord::clone(record));
        if open {
            records.terminal.pop(record.event.id());
            self.count(&records);
        } else {
            self.add_terminal(&mut records, record.event.id());
        }
    }

    pub(super) fn find(&self, id: &EventId) -> Option<SharedRecord> {
        self.records.lock().by_id.get(id).cloned()
    }

    pub(super) fn touch(&self, id: &EventId) {
        self.records.lock().terminal.promote(id);
    }

    /// Removes terminal records that were created before a wall time. Returns their number.
    pub(super) fn clean_up(&self, created_before: u64) -> usize {
        let mut expired = Vec::new();
        self.for_each(|record| {
            if !record.progress().is_open() && record.event.created_nanos() < created_before {
                expired.push(record.event.id().clone());
            }
        });
        let mut removed = 0;
        for id in &expired {
            let mut records = self.records.lock();
            // The event may have been reopened since.
            if records.terminal.pop(id).is_some() {
                records.by_id.remove(id);
                self.count(&records);
                removed += 1;
            }
        }
        removed
    }

    /// Calls `visit` with each record in the order of ids. No lock is held during the call.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&SharedRecord)) {
        let mut after: Option<EventId> = None;
        loop {
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let step: Vec<SharedRecord> = {
                let records = self.records.lock();
                records
                    .by_id
                    .range((from, Bound::Unbounded))
                    .take(SCAN_STEP)
                    .map(|(_, it)| SharedRecord::clone(it))
                    .collect()
            };
            step.iter().for_each(&mut visit);
            match step.last() {
                Some(last) if step.len() == SCAN_STEP => after = Some(last.event.id().clone()),
                _ => return,
            }
        }
    }

    fn add_terminal(&self, records: &mut Records, id: &EventId) {
        records.terminal.put(id.clone(), ());
        while records.terminal.len() > self.capacity {
            if let Some((oldest, ())) = records.terminal.pop_lru() {
                records.by_id.remove(&oldest);
            }
        }
        self.count(records);
    }

    fn count(&self, records: &Records) {
        self.len.store(records.by_id.len() as u64, Ordering::SeqCst);
    }
}
