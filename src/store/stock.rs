//! What a publishing thread has in stock: positions of the ring that it took in advance, and records to use again. With these
//! it takes what all publishers write once in a run, not once for each event.

use std::ops::Range;

use super::record::{Record, StatusSource};
use super::ring::Ring;
use super::{RUN, SharedRecord};
use crate::event::Event;

/// A thread that takes fewer than one in so many positions takes them one by one, so that it wastes none.
const SHARE: u64 = 16;
/// How many records a thread keeps for use, at most, ...
const MAX_SPARES: usize = 2 * RUN as usize;
/// ... and the longest payload that one may have that is kept.
const MAX_SPARE_PAYLOAD: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Stock {
    /// Taken and not used yet.
    positions: Range<u64>,
    /// How many were taken at once the last time.
    taken: u64,
    spares: Vec<SharedRecord>,
}

impl Stock {
    /// The next position of this thread, if there is one that is still young.
    pub(super) fn position(&self, ring: &Ring) -> Option<u64> {
        let is_young = || ring.head() - self.positions.start <= SHARE * (ring.run() - 1);
        (!self.positions.is_empty() && is_young()).then_some(self.positions.start)
    }

    /// The position was used.
    pub(super) fn advance(&mut self) {
        self.positions.start += 1;
    }

    /// Takes new positions: twice as many as the last time, if this thread is one of few that publish.
    pub(super) fn refill(&mut self, ring: &Ring) -> &Range<u64> {
        let left = self.positions.end - self.positions.start;
        if left > 0 {
            ring.give_up(left);
        }
        let others = ring.head() - self.positions.end;
        let is_one_of_few = self.taken > 0 && others < SHARE * self.taken;
        self.taken = if is_one_of_few { (2 * self.taken).min(ring.run()) } else { 1 };
        self.positions = ring.take(self.taken);
        &self.positions
    }

    /// A record has left the ring.
    pub(super) fn keep(&mut self, record: SharedRecord) {
        if self.spares.len() < MAX_SPARES && record.event.payload().len() <= MAX_SPARE_PAYLOAD {
            self.spares.push(record);
        }
    }

    /// A record of an event: a spare one, if nobody else holds it.
    pub(super) fn record(&mut self, event: Event, deliveries: u32, source: StatusSource<'_>) -> SharedRecord {
        if let Some(mut spare) = self.spares.pop()
            && let Some(record) = SharedRecord::get_mut(&mut spare)
        {
            record.reuse(event, deliveries, source);
            return spare;
        }
        SharedRecord::new(Record::new(event, deliveries, source))
    }
}
