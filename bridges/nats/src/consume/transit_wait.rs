//! The wait for messages that were delivered before the reader began: lost in transit, or given back. The only member of a subscription hands
//! out nothing of a consumer while they come back, so that the order stays complete. The consumer of a partition does not wait here: the
//! [barrier](super::handover_barrier) of its hand-over does that. The consumer of requeues has no partition.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::pull_buffer::PullBuffer;
use super::pull_state::PullState;
use crate::jetstream::DeliveryInfo;

/// How long a consumer waits for the lost messages.
const PATIENCE: Duration = Duration::from_secs(1);
/// The largest number of lost deliveries that are remembered.
const REMEMBERED: usize = 16_384;

/// The wait of one consumer.
pub(super) struct TransitWait {
    /// The lost messages, once they are known.
    lost: Option<HashSet<u64>>,
    until: Instant,
}

impl TransitWait {
    fn new(lost: Option<HashSet<u64>>) -> Self {
        Self { lost, until: Instant::now() + PATIENCE }
    }
}

impl PullState {
    /// No reader has recovered the consumer yet: messages of the one before may have been lost, or given back.
    pub(super) fn begin_transit_wait(&mut self) {
        self.transit_wait = self.handover.is_none().then(|| TransitWait::new(None));
    }

    /// The number of lost messages that are not back.
    pub(super) fn missing(&self) -> usize {
        self.transit_wait.as_ref().and_then(|it| it.lost.as_ref()).map_or(0, HashSet::len)
    }

    /// A message has arrived.
    pub(super) fn note_back(&mut self, sequence: u64) {
        if let Some(TransitWait { lost: Some(lost), .. }) = &mut self.transit_wait {
            lost.remove(&sequence);
        }
    }

    /// Ends the wait if every lost message is back, or the time is over.
    pub(super) fn end_transit_wait(&mut self) {
        let is_over = |it: &TransitWait| it.lost.as_ref().is_some_and(HashSet::is_empty) || Instant::now() >= it.until;
        if self.transit_wait.as_ref().is_some_and(is_over) {
            self.transit_wait = None;
            self.sort_waiting();
        }
    }
}

impl PullBuffer {
    /// Waits for messages that were lost and come back.
    pub(super) fn wait_for_lost(&self, id: &str, lost: HashSet<u64>) {
        if let Some(state) = self.inner.lock().states.get_mut(id) {
            state.transit_wait = Some(TransitWait::new(Some(lost)));
            state.end_transit_wait();
        }
        self.notify();
    }

    /// Remembers deliveries that were lost in transit: no call of them has begun.
    pub(super) fn remember_lost(&self, id: &str, lost: &HashSet<u64>) {
        if let Some(state) = self.inner.lock().states.get_mut(id) {
            if state.lost.len() + lost.len() > REMEMBERED {
                state.lost.clear();
            }
            lost.iter().for_each(|sequence| *state.lost.entry(*sequence).or_default() += 1);
        }
    }

    /// Of redeliveries, those with an earlier delivery that was not lost in transit: a call of it may have begun.
    pub(super) fn maybe_called(&self, id: &str, deliveries: Vec<DeliveryInfo>) -> Vec<DeliveryInfo> {
        let inner = self.inner.lock();
        let state = inner.states.get(id);
        let lost = |it: &DeliveryInfo| state.and_then(|state| state.lost.get(&it.sequence)).copied().unwrap_or(0);
        deliveries.into_iter().filter(|it| it.times_delivered > 1 + lost(it)).collect()
    }
}
