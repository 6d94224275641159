//! The barrier of a [hand-over](crate::partitions::Handover): the new owner hands out nothing until the number of unsettled messages that the
//! server reports is the number of those that are here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::pull_buffer::PullBuffer;
use super::pull_loop::Puller;
use super::pull_state::PullState;
use crate::jetstream::{Consumer, Result, consumer};
use crate::partitions::{HandoverEffect, HandoverEvent};
use crate::transport::Session;

/// The time between two counts at a barrier, if no message arrives.
const COUNT_EVERY: Duration = Duration::from_millis(100);

impl PullBuffer {
    /// Feeds the hand-over of a consumer with an event. Without partitions nothing happens.
    pub(crate) fn on(&self, id: &str, event: HandoverEvent) -> Option<HandoverEffect> {
        self.inner.lock().states.get_mut(id)?.on(event)
    }

    /// The round of a consumer's barrier.
    fn round(&self, id: &str) -> Option<u64> {
        self.inner.lock().states.get(id)?.handover.as_ref()?.round()
    }

    /// The consumers at a barrier whose count is due.
    fn take_due_counts(&self) -> Vec<Arc<Consumer>> {
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

impl Puller {
    /// Counts at the barriers whose count is due, without a wait.
    pub(super) fn post_counts(self: &Arc<Self>) {
        let due = self.buffer.take_due_counts();
        if due.is_empty() {
            return;
        }
        let puller = Arc::clone(self);
        self.runtime.post(move |session| {
            let session = session.ok()?;
            Some(Box::pin(async move {
                if let Err(error) = try_join_all(due.iter().map(|it| puller.count(&session, it))).await {
                    tracing::debug!(%error, "the unsettled messages of a partition were not counted; the count is repeated");
                }
            }))
        });
    }

    /// Counts the unsettled messages of a partition that are not here. Messages are here that were so before the question and still are after the
    /// answer.
    pub(super) async fn count(&self, session: &Session, consumer: &Consumer) -> Result<()> {
        let Some(round) = self.buffer.round(&consumer.id) else { return Ok(()) };
        let before = self.ordered_here(consumer);
        // A consumer that does not exist waits for nothing.
        let info = consumer::info(session, consumer).await?.unwrap_or_default();
        let after = self.ordered_here(consumer);
        let here = before.intersection(&after).count() as u64;
        let missing = info.open.saturating_sub(here).try_into().unwrap_or(usize::MAX);
        self.buffer.on(&consumer.id, HandoverEvent::Counted { round, missing, deliveries: info.deliveries });
        self.buffer.notify();
        Ok(())
    }

    /// The messages of a partition that have their place in the order here, without those whose verdict is on its way.
    fn ordered_here(&self, consumer: &Consumer) -> HashSet<u64> {
        let _moves = self.held.lock_moves();
        let mut here = self.held.of_consumer(consumer, |held| !held.is_ending);
        here.extend(self.buffer.waiting(&consumer.id));
        here
    }
}
