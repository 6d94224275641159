//! Deferred retries: the loopback keeps them until they are due.

use std::time::{Duration, Instant};

use eventbroker::EventId;
use eventbroker::dead_letter::AttemptError;

use super::{Leased, Loopback, Server};

/// A failed delivery that waits for its retry.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) queue: String,
    pub(super) id: EventId,
    pub(super) due: Instant,
    number: u64,
}

impl Loopback {
    /// Makes all deferred retries due now.
    pub fn end_delays(&self) {
        self.change(|server| server.bring_back(|_| true));
    }
}

impl Server {
    /// The number of retries that are not due yet.
    pub fn deferred(&self) -> usize {
        self.deferred.len()
    }

    /// Defers a leased delivery. Its event stays open, with the status processing.
    pub(super) fn defer(&mut self, lease: Leased, delay: Duration, attempts: u32, errors: &[AttemptError]) {
        let counts = self.counts(&lease.queue, &lease.id);
        let Some(queue) = self.queues.get_mut(&lease.queue) else { return };
        queue.leased -= 1;
        self.update(&lease.id, |units| {
            units.leased -= counts;
            units.reopened |= counts > 0;
            units.retries = units.retries.max(attempts.saturating_sub(1));
        });
        self.tried.insert((lease.queue.clone(), lease.number), (attempts, errors.to_vec()));
        let Leased { queue, number, id, .. } = lease;
        self.deferred.push(Deferred { queue, id, due: Instant::now() + delay, number });
    }

    /// Returns the matching retries to their queues.
    pub(super) fn bring_back(&mut self, which: impl Fn(&Deferred) -> bool) {
        let (due, kept) = std::mem::take(&mut self.deferred).into_iter().partition(which);
        self.deferred = kept;
        let due: Vec<Deferred> = due;
        for it in due {
            self.queues.entry(it.queue).and_modify(|queue| _ = queue.waiting.insert(it.number, it.id));
        }
    }
}
