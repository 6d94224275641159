//! What operators ask of a broker: dead letters, requeueing, replay, lag. Those of this process and those that a back end keeps
//! look alike here; what the back end does is behind `provider::Operator`.

use std::sync::Arc;

use super::Broker;
use crate::engine::{Engine, Phase};
use crate::outcome::{BackEndStats, BackendError, DeadLetter, DeadLetterFilter, RequeueError};
use crate::provider::{MEMORY, Operator, Replay, Replayed};

/// Dead letters that are asked of the back end, or given to it, at a time.
const PAGE: usize = 256;

impl Broker {
    /// The dead letters that match, oldest first, at most [`DeadLetterFilter::MAX_LIMIT`] of them: those that the back end keeps for
    /// the consumer group, whichever instance they are from, then those of this process. The last one's number is the cursor of
    /// the next listing.
    ///
    /// # Errors
    /// [`BackendError`] if the back end was asked and failed; never with the memory provider.
    pub fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        self.engine().list_dead_letters(filter)
    }

    /// How many dead letters are held, at the back end and in this process.
    ///
    /// # Errors
    /// As [`dead_letters`](Self::dead_letters).
    pub fn dead_letter_count(&self) -> Result<usize, BackendError> {
        let there = self.engine().operator().map_or(Ok(0), |operator| operator.stats().map(|it| it.dead_letters))?;
        Ok(there as usize + self.engine().dead_letters.count())
    }

    /// Delivers a dead letter again, to the subscription that failed (or its successor of the same name), with all its
    /// attempts before it; one of the back end to any member of it, on whichever instance. Order with other events of its key is not
    /// restored.
    ///
    /// # Errors
    /// [`RequeueError`]; the letter stays where it was.
    pub fn requeue(&self, dead_letter: u64) -> Result<(), RequeueError> {
        self.engine().requeue(dead_letter)
    }

    /// Requeues all dead letters that match and are there now, oldest first, and returns how many. Those whose subscription has
    /// gone stay.
    ///
    /// # Errors
    /// [`RequeueError::NotRunning`], [`RequeueError::BackEnd`]; those that are not requeued yet stay where they were.
    pub fn requeue_matching(&self, filter: &DeadLetterFilter) -> Result<usize, RequeueError> {
        self.engine().requeue_matching(filter)
    }

    /// Forgets the dead letters that match and are there now, and returns how many.
    ///
    /// # Errors
    /// [`BackendError`] if the back end was asked and failed: some may be gone by then.
    pub fn purge_dead_letters(&self, filter: &DeadLetterFilter) -> Result<usize, BackendError> {
        let engine = self.engine();
        let mut purged = 0;
        engine.each_page_there(filter, |operator, page| {
            purged += operator.purge(page)? as usize;
            Ok::<_, BackendError>(purged)
        })?;
        Ok(purged + engine.dead_letters.purge(&rest_of(filter, purged)))
    }

    /// Delivers events again to one subscription of the consumer group, oldest first, whether or not it runs at the moment: those in
    /// the range whose delivery is not open, also those that it never received. Returns when the deliveries wait for a member.
    /// New events are delivered beside them; the order of a key is not kept between the two.
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
    /// [`BackendError::Unsupported`] without a back end that can; [`BackendError::Refused`] if there is no such subscription, an id
    /// of the range is not held, or the limit is not 1 to [`Replay::MAX_LIMIT`].
    pub fn replay(&self, replay: &Replay) -> Result<Replayed, BackendError> {
        self.engine().replay(replay, false)
    }

    /// What [`replay`](Self::replay) would do; changes nothing.
    ///
    /// # Errors
    /// As there.
    pub fn replay_dry_run(&self, replay: &Replay) -> Result<Replayed, BackendError> {
        self.engine().replay(replay, true)
    }

    /// How far the subscriptions of the back end are behind, over all instances, and its totals.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] without a back end that keeps deliveries, else as that answers.
    pub fn back_end_stats(&self) -> Result<BackEndStats, BackendError> {
        self.engine().asked_operator("lag", |_| true)?.stats()
    }
}

impl Engine {
    fn operator(&self) -> Option<&Arc<dyn Operator>> {
        self.bridge.as_ref()?.operator.as_ref()
    }

    /// What can do it, or the error that says that the back end can't.
    fn asked_operator(
        &self,
        feature: &'static str,
        can: impl FnOnce(&crate::provider::Capabilities) -> bool,
    ) -> Result<&Arc<dyn Operator>, BackendError> {
        match &self.bridge {
            Some(bridge) => bridge.operator(feature, can(&bridge.capabilities)),
            None => Err(BackendError::Unsupported { provider: MEMORY.to_owned(), feature }),
        }
    }

    fn list_dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        let is_there = filter.after.is_none_or(|after| after < DeadLetter::FIRST_LOCAL);
        let mut letters = match self.operator().filter(|_| is_there) {
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
        self.each_page_there(filter, |operator, page| {
            requeued += operator.requeue(page)?.len();
            Ok::<_, BackendError>(requeued)
        })?;
        for id in self.dead_letters.ids(&rest_of(filter, requeued)) {
            match self.requeue_here(id) {
                Ok(()) => requeued += 1,
                Err(error @ (RequeueError::NotRunning | RequeueError::BackEnd(_))) => return Err(error),
                // Taken by another requeue, or its subscription has gone: it stays where it is.
                Err(RequeueError::NotFound { .. } | RequeueError::SubscriptionGone { .. }) => {}
            }
        }
        Ok(requeued)
    }

    /// Calls `act` with the numbers of the dead letters of the back end that match and are there now, page by page, until that
    /// returns the filter's limit.
    fn each_page_there(
        &self,
        filter: &DeadLetterFilter,
        mut act: impl FnMut(&dyn Operator, &[u64]) -> Result<usize, BackendError>,
    ) -> Result<(), BackendError> {
        let Some(operator) = self.operator() else { return Ok(()) };
        // Those that die again meanwhile have higher numbers, and are left alone.
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
        self.asked_operator("replay", |can| can.replay)?.replay(replay, dry_run)
    }
}

/// What a filter still means when so many were found at the back end.
fn rest_of(filter: &DeadLetterFilter, found: usize) -> DeadLetterFilter {
    DeadLetterFilter { limit: filter.limit.map(|limit| limit.saturating_sub(found)), ..filter.clone() }
}
