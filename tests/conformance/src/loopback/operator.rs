//! The operator of the loopback: dead letters, replay, lag and tails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::provider::{BackendError, Operator, Replay, Replayed, Tail};
use eventbroker::stats::{BackEndStats, SubscriptionLag};
use eventbroker::{Event, EventId, Pattern, StartPosition};

use super::parts::Connection;
use super::{Queue, Server, Shared};

/// The only consumer group.
const GROUP: &str = "loopback";

impl Server {
    /// The position of an event in the log.
    fn position(&self, id: &EventId) -> Result<usize, BackendError> {
        let position = self.log.iter().position(|stored| stored == id);
        position.ok_or_else(|| BackendError::Refused(format!("event {id} is not held")))
    }

    /// The ids of the events from a start position on.
    pub(super) fn stored_from(&self, start: &StartPosition) -> Result<Vec<EventId>, BackendError> {
        let since = |time| move |id: &&EventId| self.events[*id].created_at() >= time;
        Ok(match start {
            StartPosition::New => Vec::new(),
            StartPosition::Earliest => self.log.clone(),
            StartPosition::From(time) => self.log.iter().filter(since(*time)).cloned().collect(),
            StartPosition::After(id) => self.log[self.position(id)? + 1..].to_vec(),
        })
    }

    fn requeue(&mut self, number: u64) -> bool {
        let Some(dead) = self.dead_letters.remove(&number) else { return false };
        let id = dead.letter.event.id().clone();
        let counts = self.counts(&dead.queue, &id) > 0;
        if let Some(queue) = self.queues.get_mut(&dead.queue) {
            *queue.requeues.entry(id.clone()).or_default() += 1;
        }
        self.update(&id, |units| {
            units.dead.remove(&number);
            units.reopened |= counts;
        });
        self.give(&dead.queue, &id, counts);
        true
    }

    /// Whether a queue has a delivery of an event waiting, deferred or leased.
    fn is_open(&self, key: &str, queue: &Queue, id: &EventId) -> bool {
        queue.waiting.values().any(|waiting| waiting == id)
            || self.deferred.iter().any(|deferred| deferred.queue == key && deferred.id == *id)
            || self.leases.values().any(|lease| lease.queue == key && lease.id == *id)
    }

    fn replay(&mut self, replay: &Replay, member: u64, dry_run: bool) -> Result<Replayed, BackendError> {
        let key = self.queue_of(member, &replay.subscription);
        let Some(queue) = self.queues.get(&key) else {
            return Err(BackendError::Refused(format!("there is no subscription {:?}", replay.subscription)));
        };
        let first = replay.after.as_ref().map_or(Ok(0), |id| self.position(id).map(|at| at + 1))?;
        let end = replay.until.as_ref().map_or(Ok(self.log.len()), |id| self.position(id).map(|at| at + 1))?;
        let wanted = |id: &&EventId| {
            let event = &self.events[*id];
            queue.matches(event)
                && replay.from.is_none_or(|from| event.created_at() >= from)
                && replay.to.is_none_or(|to| event.created_at() <= to)
                && replay.event_type.as_ref().is_none_or(|pattern| pattern.matches(event.event_type().as_str()))
                && !self.is_open(&key, queue, id)
        };
        let range = self.log.get(first..end.max(first)).unwrap_or_default();
        let ids: Vec<EventId> = range.iter().filter(wanted).take(replay.limit).cloned().collect();
        let next = ids.last().filter(|_| ids.len() == replay.limit).cloned();
        for id in ids.iter().filter(|_| !dry_run) {
            let died = self.dead_letters.values().find(|dead| dead.queue == key && dead.letter.event.id() == id);
            match died.map(|dead| dead.letter.id) {
                Some(number) => _ = self.requeue(number),
                None => {
                    let counts = self.counts(&key, id) > 0;
                    self.update(id, |units| {
                        units.done -= usize::from(counts);
                        units.reopened |= counts;
                    });
                    self.give(&key, id, counts);
                }
            }
        }
        Ok(Replayed::new(ids.len() as u64, next))
    }

    fn lag(&self, key: &str, queue: &Queue) -> SubscriptionLag {
        let (name, instance) = match key.split_once(" of ").or_else(|| key.split_once(" at ")) {
            Some((name, instance)) => (name, Some(instance.to_owned())),
            None => (key, None),
        };
        let mut lag = SubscriptionLag::default();
        (lag.group, lag.name, lag.instance) = (GROUP.to_owned(), name.to_owned(), instance);
        lag.pattern = queue.pattern.as_ref().map(Pattern::to_string).unwrap_or_default();
        (lag.ready, lag.leased) = (queue.waiting.len() as u64, queue.leased as u64);
        lag.deferred = self.deferred.iter().filter(|deferred| deferred.queue == key).count() as u64;
        lag.dead = self.dead_letters.values().filter(|dead| dead.queue == key).count() as u64;
        lag.oldest_ready = queue.waiting.values().map(|id| self.events[id].created_at()).min();
        lag
    }
}

impl Operator for Connection {
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        self.shared.call(|server| {
            let letters = server.dead_letters.values().map(|dead| &dead.letter);
            Ok(letters.filter(|letter| filter.matches(letter)).take(filter.effective_limit()).cloned().collect())
        })
    }

    fn requeue(&self, dead_letters: &[u64]) -> Result<Vec<u64>, BackendError> {
        self.shared.call(|server| Ok(dead_letters.iter().copied().filter(|number| server.requeue(*number)).collect()))
    }

    fn purge(&self, dead_letters: &[u64]) -> Result<u64, BackendError> {
        self.shared.call(|server| {
            Ok(dead_letters.iter().filter(|number| server.dead_letters.remove(number).is_some()).count() as u64)
        })
    }

    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError> {
        self.shared.call(|server| server.replay(replay, self.member, dry_run))
    }

    fn stats(&self) -> Result<BackEndStats, BackendError> {
        self.shared.call(|server| {
            let mut stats = BackEndStats::default();
            stats.dead_letters = server.dead_letters.len() as u64;
            stats.newest_dead_letter = server.dead_letters.keys().next_back().copied().unwrap_or(0);
            stats.subscriptions = server.queues.iter().map(|(key, queue)| server.lag(key, queue)).collect();
            Ok(stats)
        })
    }

    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn Tail>, BackendError> {
        let shared = Arc::clone(&self.shared);
        let next = shared.call(|server| Ok(server.log.len() - server.stored_from(start)?.len()))?;
        Ok(Box::new(LoopbackTail { shared, pattern: pattern.clone(), next }))
    }
}

struct LoopbackTail {
    shared: Arc<Shared>,
    pattern: Pattern,
    /// The first position of the log that was not read yet.
    next: usize,
}

impl Tail for LoopbackTail {
    fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Event>, BackendError> {
        let deadline = Instant::now() + wait;
        let shared = Arc::clone(&self.shared);
        loop {
            let events: Vec<Event> = shared.call(|server| {
                let mut events = Vec::new();
                while events.len() < max && self.next < server.log.len() {
                    let event = &server.events[&server.log[self.next]];
                    self.next += 1;
                    events.extend(self.pattern.matches(event.event_type().as_str()).then(|| event.clone()));
                }
                Ok(events)
            })?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !events.is_empty() || left.is_zero() {
                return Ok(events);
            }
            let idle = |server: &mut Server| self.next >= server.log.len();
            drop(shared.changed.wait_timeout_while(shared.lock(), left, idle));
        }
    }
}
