//! The report of a stop.

use crate::event::{Event, EventId};

/// The result of [`Broker::stop`](crate::Broker::stop).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct StopReport {
    /// Whether the stop has finished.
    /// False if it was called on a worker thread or inside a handler: it then continues in the background.
    pub finished: bool,
    /// Events that were completed or failed since stop began.
    pub drained: u64,
    /// Deliveries that were released to the back end, which will deliver them again.
    pub released: u64,
    /// Events that the back end has not confirmed. It may or may not have stored them.
    pub unflushed: Vec<Event>,
    /// Events with deliveries that were cancelled or still ran at the deadline, by id.
    pub abandoned: Vec<EventId>,
    /// Threads that had not ended: inside a handler, or in a call of the back end.
    pub threads_left: usize,
}

impl StopReport {
    /// Whether the stop has finished and left nothing undone.
    pub fn is_clean(&self) -> bool {
        self.finished && self.abandoned.is_empty() && self.unflushed.is_empty() && self.threads_left == 0
    }
}
