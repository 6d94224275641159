//! The verbs of the loopback: store events, enqueue deliveries, and take, settle and expire leases.

use std::collections::BTreeMap;
use std::time::Instant;

use eventbroker::dead_letter::DeadLetter;
use eventbroker::provider::{BackendError, Demand, Lease, LeaseOutcome, LeaseToken, SendOutcome};
use eventbroker::{Event, EventId};

use super::{Dead, Leased, Queue, Server, Settlement, Units};

impl Server {
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn away(&self) -> BackendError {
        BackendError::Unavailable("the loopback was switched off".to_owned())
    }

    /// The number of leases held.
    pub fn leased(&self) -> usize {
        self.leases.len()
    }

    /// Whether a member holds the name of an instance.
    pub fn has_name(&self, instance: &str) -> bool {
        self.instances.contains_key(instance)
    }

    /// The number of leases of a subscription settled as done.
    pub fn done(&self, name: &str) -> usize {
        self.count_settled(name, |outcome| matches!(outcome, LeaseOutcome::Done { .. }))
    }

    /// The number of leases of a subscription that were released.
    pub fn released(&self, name: &str) -> usize {
        self.count_settled(name, |outcome| *outcome == LeaseOutcome::Released)
    }

    fn count_settled(&self, name: &str, how: impl Fn(&LeaseOutcome) -> bool) -> usize {
        self.settlements.iter().filter(|it| it.name == name && how(&it.outcome)).count()
    }

    pub(super) fn hold(&mut self, event: &Event, origin: u64) -> SendOutcome {
        if let Some(known) = self.events.get(event.id()) {
            return if known.same_content(event) { SendOutcome::Known } else { SendOutcome::Conflict };
        }
        if let Some(reason) = &self.faults.refusal {
            return SendOutcome::Refused(reason.clone());
        }
        let (dead, reported) = (BTreeMap::new(), None);
        self.units.insert(
            event.id().clone(),
            Units {
                sent: event.clone(),
                origin,
                open: 0,
                leased: 0,
                done: 0,
                dead,
                reported,
                retries: 0,
                reopened: false,
            },
        );
        self.log.push(event.id().clone());
        let matches = |queue: &Queue| queue.matches(event);
        let keys: Vec<String> =
            self.queues.iter().filter(|(_, queue)| matches(queue)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.give(key, event.id(), true));
        self.update(event.id(), |_| ());
        SendOutcome::Held
    }

    /// Enqueues a delivery of an event.
    pub(super) fn give(&mut self, key: &str, id: &EventId, counts: bool) {
        let number = self.number();
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.waiting.insert(number, id.clone());
        queue.given.insert(id.clone(), counts);
        self.update(id, |units| units.open += usize::from(counts));
    }

    /// 1 if the status of an event depends on its delivery to a queue, else 0.
    pub(super) fn counts(&self, key: &str, id: &EventId) -> usize {
        self.queues.get(key).and_then(|queue| queue.given.get(id)).map_or(0, |counts| usize::from(*counts))
    }

    /// Changes the progress of an event, and derives its status. False if the event is not known.
    pub(super) fn update(&mut self, id: &EventId, how: impl FnOnce(&mut Units)) -> bool {
        let Some(units) = self.units.get_mut(id) else { return false };
        how(units);
        self.events.insert(id.clone(), units.event());
        true
    }

    /// Expires the matching leases: their deliveries wait again, as suspects.
    pub(super) fn take_back(&mut self, which: impl Fn(&Leased) -> bool) {
        let (back, kept) = std::mem::take(&mut self.leases).into_iter().partition(|(_, lease)| which(lease));
        self.leases = kept;
        let back: BTreeMap<LeaseToken, Leased> = back;
        for lease in back.into_values() {
            *self.suspects.entry((lease.queue.clone(), lease.number)).or_default() += u32::from(lease.marked);
            self.give_back(lease);
        }
    }

    pub(super) fn give_back(&mut self, lease: Leased) {
        let counts = self.counts(&lease.queue, &lease.id);
        let Some(queue) = self.queues.get_mut(&lease.queue) else { return };
        queue.leased -= 1;
        queue.waiting.insert(lease.number, lease.id.clone());
        self.update(&lease.id, |units| units.leased -= counts);
    }

    /// Removes a queue with its waiting, deferred, leased and dead deliveries.
    pub(super) fn remove_queue(&mut self, key: &str) -> Option<Queue> {
        let queue = self.queues.remove(key)?;
        let counts = |id: &EventId| queue.given.get(id).map_or(0, |counts| usize::from(*counts));
        let (gone, kept): (Vec<_>, _) = std::mem::take(&mut self.deferred).into_iter().partition(|it| it.queue == key);
        self.deferred = kept;
        self.tried.retain(|(of, _), _| of != key);
        for id in queue.waiting.values().chain(gone.iter().map(|it| &it.id)) {
            self.update(id, |units| units.open -= counts(id));
        }
        let leased: Vec<EventId> =
            self.leases.values().filter(|lease| lease.queue == key).map(|lease| lease.id.clone()).collect();
        for id in &leased {
            self.update(id, |units| {
                units.open -= counts(id);
                units.leased -= counts(id);
            });
        }
        self.leases.retain(|_, lease| lease.queue != key);
        self.dead_letters.retain(|_, dead| dead.queue != key);
        Some(queue)
    }

    /// Settles a lease. False if it was lost before.
    pub(super) fn settle(&mut self, token: LeaseToken, outcome: &LeaseOutcome) -> bool {
        let Some(lease) = self.leases.remove(&token) else { return false };
        let settlement = Settlement { name: lease.name.clone(), id: lease.id.clone(), outcome: outcome.clone() };
        self.settlements.push(settlement);
        if *outcome == LeaseOutcome::Released {
            self.give_back(lease);
            return true;
        }
        self.suspects.remove(&(lease.queue.clone(), lease.number));
        if let LeaseOutcome::Deferred { delay, attempts, errors } = outcome {
            self.defer(lease, *delay, *attempts, errors);
            return true;
        }
        self.tried.remove(&(lease.queue.clone(), lease.number));
        let counts = self.counts(&lease.queue, &lease.id);
        if let Some(queue) = self.queues.get_mut(&lease.queue) {
            queue.leased -= 1;
        }
        let number = self.number();
        let mut died = None;
        self.update(&lease.id, |units| {
            units.open -= counts;
            units.leased -= counts;
            match outcome {
                LeaseOutcome::Dead { reason, attempts, error, errors } => {
                    let mut letter = DeadLetter::new(number, units.sent.clone(), lease.name.as_str(), *reason);
                    letter.attempts = *attempts;
                    letter.first_failed_at = errors.first().map_or(letter.dead_at, |first| first.at);
                    letter.errors.clone_from(errors);
                    units.retries = units.retries.max(attempts.saturating_sub(1));
                    died = Some(letter);
                    if counts > 0 {
                        units.dead.insert(number, error.clone());
                    }
                }
                LeaseOutcome::Done { attempts } => {
                    units.done += counts;
                    units.retries = units.retries.max(attempts.saturating_sub(1));
                }
                _ => {}
            }
        });
        if let Some(mut letter) = died {
            letter.event = self.events.get(&lease.id).cloned().unwrap_or(letter.event);
            let requeues = self.queues.get(&lease.queue).and_then(|queue| queue.requeues.get(&lease.id));
            letter.requeues = requeues.copied().unwrap_or(0);
            self.dead_letters.insert(number, Dead { letter, queue: lease.queue });
        }
        true
    }

    /// Removes a member from a subscription. The queue of a broadcast subscription is removed too, unless it is
    /// durable.
    pub(super) fn leave(&mut self, member: u64, name: &str) {
        let key = self.queue_of(member, name);
        let Some(queue) = self.queues.get_mut(&key) else { return };
        queue.members.remove(&member);
        if key == own_queue(name, member) {
            self.remove_queue(&key);
        }
    }

    /// The key of a member's queue of a subscription.
    pub(super) fn queue_of(&self, member: u64, name: &str) -> String {
        let instance = self.instances.iter().find(|(_, holder)| **holder == member);
        let durable = instance.map(|(instance, _)| durable_queue(name, instance));
        let own = own_queue(name, member);
        [Some(own), durable]
            .into_iter()
            .flatten()
            .find(|key| self.queues.contains_key(key))
            .unwrap_or_else(|| name.to_owned())
    }

    /// Whether a member can lease a delivery of a subscription.
    pub(super) fn has_for(&self, member: u64, demand: &Demand) -> bool {
        let queue = self.queues.get(&self.queue_of(member, &demand.subscription));
        queue.is_some_and(|queue| queue.members.contains(&member) && queue.first(&self.faults).is_some())
    }

    /// Leases the oldest delivery of a subscription to a member.
    pub(super) fn lease(&mut self, member: u64, name: &str) -> Option<Lease> {
        let key = self.queue_of(member, name);
        let queue = self.queues.get_mut(&key).filter(|queue| queue.members.contains(&member))?;
        let number = queue.first(&self.faults)?;
        let id = queue.waiting.remove(&number)?;
        queue.leased += 1;
        queue.most_leased = queue.most_leased.max(queue.leased);
        let token = LeaseToken(self.number());
        let counts = self.counts(&key, &id);
        self.update(&id, |units| units.leased += counts);
        let event = self.units.get(&id)?.sent.clone();
        let now = Instant::now();
        let asked = now.checked_sub(self.faults.delay).unwrap_or(now);
        let ends = asked + self.lease_time;
        let lease = Lease::new(token, name, event).asked_at(asked);
        let place = (key.clone(), number);
        let (suspicion, tried) = (self.suspects.get(&place).copied(), self.tried.get(&place).cloned());
        let lease = tried.into_iter().fold(lease, |lease, (attempts, errors)| lease.tried(attempts, errors));
        self.leases.insert(token, Leased { name: name.to_owned(), queue: key, number, id, ends, marked: false });
        Some(match suspicion {
            Some(crashes) => lease.suspected(crashes),
            None => lease,
        })
    }
}

/// The key of a broadcast subscription's queue, one per member.
pub(super) fn own_queue(name: &str, member: u64) -> String {
    format!("{name} at {member}")
}

/// The key of a durable broadcast subscription's queue, one per instance.
pub(super) fn durable_queue(name: &str, instance: &str) -> String {
    format!("{name} of {instance}")
}
