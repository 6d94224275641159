//! The ingest loop: hands out messages, and between two steps retries acknowledgements, restores removed streams and runs the housekeeping.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::{Demand, Ingest, Lease, Waker};

use super::backend::Backend;
use crate::consume::HandOut;
use crate::jetstream::Result;
use crate::partitions::Selection;

/// The time between two runs of the housekeeping.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(10);
/// The time between two polls of a subscription without room, or of messages that may not be handed out.
const POLL_EVERY: Duration = Duration::from_millis(200);

pub(super) struct NatsIngest {
    backend: Arc<Backend>,
    hand_out: HandOut,
    next_housekeeping: Instant,
}

impl NatsIngest {
    pub(super) fn new(backend: &Arc<Backend>) -> Self {
        let Backend { settings, layout, subscriptions, puller, claims, held, .. } = &**backend;
        let selection = Selection::new(claims.clone(), held, settings.lease_times());
        let hand_out = HandOut::new(layout, subscriptions, puller, selection);
        Self { backend: Arc::clone(backend), hand_out, next_housekeeping: Instant::now() }
    }

    fn run(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>> {
        let backend = Arc::clone(&self.backend);
        let Backend { runtime, buffer, subscriptions, housekeeping, .. } = &*backend;
        let deadline = Instant::now() + wait;
        loop {
            if let Some(problem) = buffer.take_problem() {
                return Err(problem);
            }
            backend.pending.retry()?;
            if buffer.take_doubt() {
                let housekeeping = Arc::clone(housekeeping);
                runtime.call_long(move |session| async move { housekeeping.restore(&session).await })?;
            }
            if Instant::now() >= self.next_housekeeping || backend.publisher.take_was_full() {
                self.next_housekeeping = Instant::now() + HOUSEKEEPING_EVERY.min(backend.settings.idle_expiry);
                let housekeeping = Arc::clone(housekeeping);
                runtime.call_long(move |session| async move { housekeeping.run(&session).await })?;
            }
            self.hand_out.select(demand, |durable| backend.has_messages_here(durable));
            let leases = self.hand_out.step(demand);
            let now = Instant::now();
            if !leases.is_empty() || now >= deadline {
                return Ok(leases);
            }
            let polls_soon = subscriptions.count() > demand.len() || buffer.has_closed_state();
            let next = if polls_soon { now + POLL_EVERY } else { deadline };
            let next = self.hand_out.selection.next_poll().map_or(next, |claims| claims.min(next));
            if buffer.wait(deadline.min(self.next_housekeeping).min(next)) {
                return Ok(Vec::new());
            }
        }
    }
}

impl Ingest for NatsIngest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>> {
        self.backend.buffer.receive_begins();
        let received = self.run(demand, wait);
        self.backend.buffer.receive_ended();
        received
    }

    fn wanted_back(&mut self) -> Vec<Arc<str>> {
        let Some(claims) = &self.backend.claims else { return Vec::new() };
        let durables = claims.take_to_give_back();
        let local = self.backend.subscriptions.local().into_iter();
        local.filter(|(_, it)| durables.contains(&it.durable)).map(|(name, _)| name).collect()
    }

    fn waker(&self) -> Option<Waker> {
        let buffer = Arc::clone(&self.backend.buffer);
        Some(Arc::new(move || buffer.wake()))
    }
}

impl Drop for NatsIngest {
    fn drop(&mut self) {
        self.hand_out.close();
    }
}
