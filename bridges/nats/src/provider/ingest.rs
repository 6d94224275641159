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
/// The time between two looks at a subscription without room, or at a barrier.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) struct NatsIngest {
    backend: Arc<Backend>,
    hand_out: HandOut,
    next_housekeeping: Instant,
}

impl NatsIngest {
    pub(super) fn new(backend: &Arc<Backend>) -> Self {
        let Backend { settings, layout, subscriptions, puller, claims, held, .. } = &**backend;
        let selection = Selection::new(claims.clone(), held, settings.lease_time);
        let hand_out = HandOut::new(layout, subscriptions, puller, selection);
        Self { backend: Arc::clone(backend), hand_out, next_housekeeping: Instant::now() }
    }

    fn run(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>> {
        let backend = Arc::clone(&self.backend);
        let Backend { runtime, buffer, subscriptions, housekeeping, .. } = &*backend;
        let deadline = Instant::now() + wait;
        loop {
            if let Some(problem) = buffer.problem() {
                return Err(problem);
            }
            backend.pending.retry()?;
            if buffer.is_in_doubt() {
                let housekeeping = Arc::clone(housekeeping);
                runtime.call_long(move |session| async move { housekeeping.restore(&session).await })?;
            }
            if Instant::now() >= self.next_housekeeping || backend.publisher.was_full() {
                self.next_housekeeping = Instant::now() + HOUSEKEEPING_EVERY.min(backend.settings.idle_expiry);
                let housekeeping = Arc::clone(housekeeping);
                runtime.call_long(move |session| async move { housekeeping.run(&session).await })?;
            }
            self.hand_out.select(demand, |durable| backend.has_partition_in_hand(durable));
            let leases = self.hand_out.step(demand);
            let now = Instant::now();
            if !leases.is_empty() || now >= deadline {
                return Ok(leases);
            }
            let looks_soon = subscriptions.count() > demand.len() || buffer.has_barrier();
            let look = if looks_soon { now + LOOK_EVERY } else { deadline };
            let look = self.hand_out.selection.next_poll().map_or(look, |next| next.min(look));
            if buffer.wait(deadline.min(self.next_housekeeping).min(look)) {
                return Ok(Vec::new());
            }
        }
    }
}

impl Ingest for NatsIngest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>> {
        self.backend.buffer.begin();
        let received = self.run(demand, wait);
        self.backend.buffer.end();
        received
    }

    fn wanted_back(&mut self) -> Vec<Arc<str>> {
        let Some(claims) = &self.backend.claims else { return Vec::new() };
        let durables = claims.wanted_back();
        let wanted = self.backend.subscriptions.local().into_iter().filter(|(_, it)| durables.contains(&it.durable));
        wanted.map(|(name, _)| name).collect()
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
