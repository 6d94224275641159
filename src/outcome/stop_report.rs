//! The report of a stop.

use crate::event::{Event, EventId};

/// What became of everything when the broker stopped.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct StopReport {
    /// False if stop was called on a worker thread or inside a handler: it goes on without the caller.
    pub finished: bool,
    /// Events that were completed or failed since stop began.
    pub drained: u64,
    /// Deliveries that were given back to the back end, which will deliver them again.
    pub released: u64,
    /// Events that the back end has not confirmed: held or not, nobody knows.
    pub unflushed: Vec<Event>,
    /// Events with deliveries that were cancelled or still ran at the deadline, in the order of ids.
    pub abandoned: Vec<EventId>,
    /// Threads that were still inside a handler.
    pub threads_left: usize,
}

impl StopReport {
    /// Whether everything that was accepted was handled.
    pub fn is_clean(&self) -> bool {
        self.finished && self.abandoned.is_empty() && self.unflushed.is_empty() && self.threads_left == 0
    }
}
