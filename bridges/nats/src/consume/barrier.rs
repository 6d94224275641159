//! Barriers in the pull buffer. Without partitions, the only member of a subscription waits for messages that were lost in transit. With
//! partitions, the [hand-over](crate::partitions::Handover) has the barrier, and the buffer feeds it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pull_buffer::PullBuffer;
use super::pull_state::{Barrier, PullState};
use crate::jetstream::Consumer;
use crate::partitions::{Effect, Event};

/// How long a consumer waits for messages lost in transit.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// The largest number of lost deliveries that are remembered.
const REMEMBERED: usize = 16_384;
/// The time between two counts at the barrier of a hand-over, if no message arrives.
const COUNT_EVERY: Duration = Duration::from_millis(100);

impl PullBuffer {
    /// Whether messages wait behind a barrier.
    pub(crate) fn has_barrier(&self) -> bool {
        self.inner.lock().states.values().any(|state| !state.is_open())
    }

    /// Feeds the hand-over of a consumer with an event. Without partitions nothing happens.
    pub(crate) fn on(&self, id: &str, event: Event) -> Option<Effect> {
        self.inner.lock().states.get_mut(id)?.on(event)
    }

    /// Waits for messages that were lost in transit and come back; then the order is complete.
    pub(super) fn wait_for_lost(&self, id: &str, lost: HashSet<u64>) {
        self.remember_lost(id, &lost);
        if let Some(state) = self.inner.lock().states.get_mut(id) {
            state.barrier = Some(Barrier { lost: Some(lost), until: Instant::now() + PATIENCE });
            state.lift_barrier_if_complete();
        }
        self.ring();
    }

    /// Remembers deliveries that were lost in transit: no call has begun them.
    pub(super) fn remember_lost(&self, id: &str, lost: &HashSet<u64>) {
        if let Some(state) = self.inner.lock().states.get_mut(id) {
            if state.lost.len() + lost.len() > REMEMBERED {
                state.lost.clear();
            }
            lost.iter().for_each(|sequence| *state.lost.entry(*sequence).or_default() += 1);
        }
    }

    /// The round of the barrier in the hand-over of a consumer.
    pub(super) fn round(&self, id: &str) -> Option<u64> {
        self.inner.lock().states.get(id)?.handover.as_ref()?.round()
    }

    /// The consumers at the barrier of their hand-over whose count is due.
    pub(super) fn due_counts(&self) -> Vec<Arc<Consumer>> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let mut due = Vec::new();
        for PullState { consumer, handover, inbox, counted, .. } in inner.states.values_mut() {
            let is_at_barrier = inbox.is_some() && handover.as_ref().is_some_and(|it| it.round().is_some());
            if is_at_barrier && counted.is_none_or(|at| now - at >= COUNT_EVERY) {
                *counted = Some(now);
                due.push(Arc::clone(consumer));
            }
        }
        due
    }
}
