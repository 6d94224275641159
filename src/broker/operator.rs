//! The operators' verbs: dead letters, requeueing, replay, lag. Dead letters of this process and of the back end form
//! one sequence here; the back end's side is behind `provider::Operator`.

use std::sync::Arc;

use super::Broker;
use crate::engine::{Engine, Phase};
use crate::outcome::{BackEndStats, BackendError, DeadLetter, DeadLetterFilter, RequeueError};
use crate::provider::{MEMORY, Operator, Replay, Replayed};

/// The most dead letters per call of the back end.
const PAGE: usize = 256;

impl Broker {
    /// The matching dead letters, oldest first, at most [`DeadLetterFilter::MAX_LIMIT`].
    ///
    /// First come those that the back end keeps for the consumer group, from every instance, then those of this
    /// process. The last id is the cursor ([`DeadLetterFilter::after`]) of the next listing. Blocks for a round trip.
    ///
    /// # Errors
    /// [`BackendError`] if the back end fails; never with the memory provider.
    pub fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        self.engine().list_dead_letters(filter)
    }

    /// The number of dead letters at the back end and in this process.
    ///
    /// Blocks for a round trip if there is a back end.
    ///
    /// # Errors
    /// As [`dead_letters`](Self::dead_letters).
    pub fn dead_letter_count(&self) -> Result<usize, BackendError> {
        let remote = self.engine().operator().map_or(Ok(0), |operator| operator.stats().map(|it| it.dead_letters))?;
        Ok(remote as usize + self.engine().dead_letters.count())
    }

    /// Delivers a dead letter again, with a full set of attempts.
    ///
    /// It goes to the subscription that failed, or its successor of the same name; a dead letter of the back end goes
    /// to any member of that subscription, on any instance. The order with other events of its key is not restored.
    /// Blocks for a round trip if the back end keeps the letter.
    ///
    /// # Errors
    /// [`RequeueError`]; the dead letter stays where it was.
    pub fn requeue(&self, dead_letter: u64) -> Result<(), RequeueError> {
        self.engine().requeue(dead_letter)
    }

    /// Requeues all matching dead letters, oldest first, and returns how many.
    ///
    /// Those added meanwhile, and those of removed subscriptions, stay. Blocks for a round trip per 256 dead letters.
    ///
    /// # Errors
    /// [`RequeueError::NotRunning`], [`RequeueError::BackEnd`]; the remaining dead letters stay where they were.
    pub fn requeue_matching(&self, filter: &DeadLetterFilter) -> Result<usize, RequeueError> {
        self.engine().requeue_matching(filter)
    }

    /// Deletes all matching dead letters, and returns how many.
    ///
    /// Those added at the back end meanwhile stay. Blocks for a round trip per 256 dead letters.
    ///
    /// # Errors
    /// [`BackendError`] if the back end fails; some dead letters may be deleted by then.
    pub fn purge_dead_letters(&self, filter: &DeadLetterFilter) -> Result<usize, BackendError> {
        let engine = self.engine();
        let mut purged = 0;
        engine.for_each_remote_page(filter, |operator, page| {
            purged += operator.purge(page)? as usize;
            Ok::<_, BackendError>(purged)
        })?;
        Ok(purged + engine.dead_letters.purge(&with_remaining_limit(filter, purged)))
    }

    /// Delivers events again to one subscription of the consumer group, oldest first.
    ///
    /// These are the events of the range whose delivery is not open, including those that the subscription never
    /// received. No member needs to be running: the call blocks until the back end has stored the deliveries. New
    /// events are delivered meanwhile; the order of a key is not kept between the two.
    ///
    /// ```no_run
    /// # fn repair(broker: &eventbroker::Broker) -> Result<(), eventbroker::provider::BackendError> {
    /// use eventbroker::provider::Replay;
    /// use std::time::{Duration, SystemTime};
    ///
    /// let mut replay = Replay::of("mailer");
    /// replay.from = Some(SystemTime::now() - Duration::from_secs(3600));
    /// println!("{} events would be delivered again", broker.replay_dry_run(&replay)?.deliveries);
    /// while let Some(next) = broker.replay(&replay)?.next {
    ///     replay.after = Some(next);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] without a back end that offers replay; [`BackendError::Refused`] if the
    /// subscription does not exist, an id of the range is not held, or the limit is not 1 to [`Replay::MAX_LIMIT`].
    pub fn replay(&self, replay: &Replay) -> Result<Replayed, BackendError> {
        self.engine().replay(replay, false)
    }

    /// Counts the deliveries that [`replay`](Self::replay) would make; changes nothing.
    ///
    /// Blocks for the back end's answer.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub fn replay_dry_run(&self, replay: &Replay) -> Result<Replayed, BackendError> {
        self.engine().replay(replay, true)
    }

    /// The backlog of each subscription at the back end, over all instances, and its totals.
    ///
    /// Blocks for a round trip.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] without a back end that keeps deliveries; [`BackendError`] if the back end fails.
    pub fn back_end_stats(&self) -> Result<BackEndStats, BackendError> {
        self.engine().require_operator("lag", |_| true)?.stats()
    }
}

impl Engine {
    fn operator(&self) -> Option<&Arc<dyn Operator>> {
        self.bridge.as_ref()?.operator.as_ref()
    }

    /// The operator's part of the back end, or the error that the back end does not support `feature`.
    fn require_operator(
        &self,
        feature: &'static str,
        is_offered: impl FnOnce(&crate::provider::Capabilities) -> bool,
    ) -> Result<&Arc<dyn Operator>, BackendError> {
        match &self.bridge {
            Some(bridge) => bridge.operator(feature, is_offered(&bridge.capabilities)),
            None => Err(BackendError::Unsupported { provider: MEMORY.to_owned(), feature }),
        }
    }

    fn list_dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        let wants_remote = filter.after.is_none_or(|after| after < DeadLetter::FIRST_LOCAL);
        let mut letters = match self.operator().filter(|_| wants_remote) {
            Some(operator) => operator.dead_letters(filter)?,
            None => Vec::new(),
        };
        let subscriptions = self.subscriptions.lock();
        for letter in &mut letters {
            letter.subscription = subscriptions.find_by_name(&letter.name).map(|it| it.id);
        }
        drop(subscriptions);
        let left = filter.effective_limit().saturating_sub(letters.len());
        letters.extend(self.dead_letters.list(&DeadLetterFilter { limit: Some(left), ..filter.clone() }));
        Ok(letters)
    }

    fn requeue(self: &Arc<Self>, id: u64) -> Result<(), RequeueError> {
        let Some(operator) = self.operator().filter(|_| id < DeadLetter::FIRST_LOCAL) else {
            return self.requeue_here(id);
        };
        if self.lifecycle.phase() != Phase::Running {
            return Err(RequeueError::NotRunning);
        }
        let requeued = operator.requeue(&[id])?;
        if requeued.is_empty() { Err(RequeueError::NotFound { id }) } else { Ok(()) }
    }

    fn requeue_matching(self: &Arc<Self>, filter: &DeadLetterFilter) -> Result<usize, RequeueError> {
        if self.lifecycle.phase() != Phase::Running {
            return Err(RequeueError::NotRunning);
        }
        let mut requeued = 0;
        self.for_each_remote_page(filter, |operator, page| {
            requeued += operator.requeue(page)?.len();
            Ok::<_, BackendError>(requeued)
        })?;
        for id in self.dead_letters.ids(&with_remaining_limit(filter, requeued)) {
            match self.requeue_here(id) {
                Ok(()) => requeued += 1,
                Err(error @ (RequeueError::NotRunning | RequeueError::BackEnd(_))) => return Err(error),
                // Another requeue has taken the dead letter, or its subscription was removed: then it stays.
                Err(RequeueError::NotFound { .. } | RequeueError::SubscriptionGone { .. }) => {}
            }
        }
        Ok(requeued)
    }

    /// Calls `act` with the ids of the matching dead letters of the back end, in pages. `act` returns the total so far.
    fn for_each_remote_page(
        &self,
        filter: &DeadLetterFilter,
        mut act: impl FnMut(&dyn Operator, &[u64]) -> Result<usize, BackendError>,
    ) -> Result<(), BackendError> {
        let Some(operator) = self.operator() else { return Ok(()) };
        // Dead letters that are added meanwhile have higher ids, and are left out.
        let newest = operator.stats()?.newest_dead_letter;
        let mut page = filter.clone();
        let mut left = filter.limit.unwrap_or(usize::MAX);
        while left > 0 && page.after.is_none_or(|after| after < newest) {
            page.limit = Some(left.min(PAGE));
            let letters = operator.dead_letters(&page)?;
            let ids: Vec<u64> = letters.iter().map(|letter| letter.id).filter(|id| *id <= newest).collect();
            let Some(last) = ids.last() else { break };
            page.after = Some(*last);
            left = filter.limit.unwrap_or(usize::MAX).saturating_sub(act(&**operator, &ids)?);
        }
        Ok(())
    }

    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError> {
        if !(1..=Replay::MAX_LIMIT).contains(&replay.limit) {
            let (is, most) = (replay.limit, Replay::MAX_LIMIT);
            return Err(BackendError::Refused(format!("limit: is {is}, 1 to {most} is allowed")));
        }
        self.require_operator("replay", |capabilities| capabilities.replay)?.replay(replay, dry_run)
    }
}

/// A filter with its limit reduced by the dead letters that were found at the back end.
fn with_remaining_limit(filter: &DeadLetterFilter, found: usize) -> DeadLetterFilter {
    DeadLetterFilter { limit: filter.limit.map(|limit| limit.saturating_sub(found)), ..filter.clone() }
}
