//! The stock of a publishing thread: ring positions that it took in advance, and records to reuse. With these a thread
//! writes memory that all publishers share once for each run, not once for each event.

use std::ops::Range;

use super::record::{Record, StatusSource};
use super::ring::Ring;
use super::{RUN, SharedRecord};
use crate::event::Event;

/// A thread that publishes less than one event in this many takes positions one by one, so that it wastes none.
const SHARE: u64 = 16;
/// How many spare records a thread keeps, at most.
const MAX_SPARES: usize = 2 * RUN as usize;
/// The longest payload of a spare record, in bytes.
const MAX_SPARE_PAYLOAD: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Stock {
    /// Positions that were taken and not used yet.
    positions: Range<u64>,
    /// How many positions were taken the last time.
    taken: u64,
    spares: Vec<SharedRecord>,
}

impl Stock {
    /// The next position of this thread, if it is near enough to the head: an older one would be evicted too early.
    pub(super) fn position(&self, ring: &Ring) -> Option<u64> {
        let is_young = || ring.head() - self.positions.start <= SHARE * (ring.run() - 1);
        (!self.positions.is_empty() && is_young()).then_some(self.positions.start)
    }

    pub(super) fn advance(&mut self) {
        self.positions.start += 1;
    }

    /// Gives up positions that are left and takes new ones: twice as many as the last time if this thread publishes at
    /// least one event in [`SHARE`], else one.
    pub(super) fn refill(&mut self, ring: &Ring) -> &Range<u64> {
        let left = self.positions.end - self.positions.start;
        if left > 0 {
            ring.give_up(left);
        }
        let others = ring.head() - self.positions.end;
        let publishes_often = self.taken > 0 && others < SHARE * self.taken;
        self.taken = if publishes_often { (2 * self.taken).min(ring.run()) } else { 1 };
        self.positions = ring.take(self.taken);
        &self.positions
    }

    /// Keeps a record that has left the ring as a spare one.
    pub(super) fn keep(&mut self, record: SharedRecord) {
        if self.spares.len() < MAX_SPARES && record.event.payload().len() <= MAX_SPARE_PAYLOAD {
            self.spares.push(record);
        }
    }

    /// Makes a record of an event, from a spare one if nothing else holds that.
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
