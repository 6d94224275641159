//! The parts of a provider on the loopback: store, mirror, ingest and settler of one broker. They call the server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider;
use eventbroker::provider::{
    BackendError, Demand, EventStore, Ingest, Lease, LeaseToken, Mirror, Registration, SendOutcome, Settler,
    StatusChange, Waker,
};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId, Pattern, Scope, Status};

use super::server::{durable_queue, own_queue};
use super::{Queue, Server, Shared};

/// One connection of a broker.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) member: u64,
}

impl Mirror for Connection {
    fn send(&mut self, batch: &[Event], _meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
        let mut server = self.shared.lock();
        server.sends += 1;
        self.shared.changed.notify_all();
        let held = |server: &mut Server| server.faults.sends_held;
        drop(self.shared.changed.wait_while(server, held).expect("no panic under the lock"));
        self.shared.call(|server| {
            let outcomes = batch.iter().map(|event| server.hold(event, self.member)).collect();
            if server.faults.answers_to_lose > 0 {
                server.faults.answers_to_lose -= 1;
                return Err(BackendError::Unavailable("the answer was lost".to_owned()));
            }
            Ok(outcomes)
        })
    }
}

#[derive(Debug)]
pub(super) struct LoopbackIngest {
    pub(super) connection: Connection,
    /// The value of `Server::wakes` at the last check.
    pub(super) heard: u64,
}

impl LoopbackIngest {
    /// Whether the waker was called since the last check.
    fn is_woken(&mut self, server: &Server) -> bool {
        std::mem::replace(&mut self.heard, server.wakes) != server.wakes
    }
}

impl Ingest for LoopbackIngest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let (shared, member) = (Arc::clone(&self.connection.shared), self.connection.member);
        let deadline = Instant::now() + wait;
        shared.call(|server| {
            server.receives += 1;
            let asked: BTreeSet<String> =
                demand.iter().map(|demand| server.queue_of(member, &demand.subscription)).collect();
            for (name, queue) in &mut server.queues {
                queue.asked_by.remove(&member);
                queue.asked_by.extend(asked.contains(name).then_some(member));
            }
            Ok(())
        })?;
        loop {
            let leases = shared.call(|server| {
                if self.is_woken(server) {
                    return Ok(Some(Vec::new()));
                }
                let now = Instant::now();
                server.take_back(|lease| lease.ends <= now);
                server.bring_back(|deferred| deferred.due <= now);
                let mut leases = Vec::new();
                for demand in demand {
                    let more = std::iter::from_fn(|| server.lease(member, &demand.subscription));
                    leases.extend(more.take(demand.deliveries));
                }
                Ok(Some(leases).filter(|leases| !leases.is_empty() || now >= deadline))
            })?;
            if let Some(leases) = leases {
                let held = |server: &mut Server| server.faults.answers_held && !leases.is_empty();
                drop(shared.changed.wait_while(shared.lock(), held).expect("no panic under the lock"));
                return Ok(leases);
            }
            // A lease that expires during this wait is noticed at the next call.
            let idle = |server: &mut Server| {
                !server.faults.unavailable
                    && server.wakes == self.heard
                    && !demand.iter().any(|demand| server.has_for(member, demand))
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let held = |server: &mut Server| server.faults.receives_held;
            drop(shared.changed.wait_while(shared.lock(), held).expect("no panic under the lock"));
            drop(shared.changed.wait_timeout_while(shared.lock(), left, idle));
        }
    }

    fn waker(&self) -> Option<Waker> {
        let shared = Arc::clone(&self.connection.shared);
        Some(Arc::new(move || {
            shared.lock().wakes += 1;
            shared.changed.notify_all();
        }))
    }
}

/// The settler. Dropping it removes the member from its subscriptions and frees the instance name.
#[derive(Debug)]
pub(super) struct LoopbackSettler {
    pub(super) connection: Connection,
    pub(super) instance: String,
}

impl Settler for LoopbackSettler {
    fn join(&mut self, instance_id: &str) -> Result<bool, BackendError> {
        let member = self.connection.member;
        let joined = self
            .connection
            .shared
            .call(|server| Ok(*server.instances.entry(instance_id.to_owned()).or_insert(member) == member))?;
        if joined {
            self.instance = instance_id.to_owned();
        }
        Ok(joined)
    }

    fn register(&mut self, registration: &Registration) -> Result<(), BackendError> {
        let held = |server: &mut Server| server.faults.registrations_held;
        drop(
            self.connection
                .shared
                .changed
                .wait_while(self.connection.shared.lock(), held)
                .expect("no panic under the lock"),
        );
        let pattern = Pattern::parse(&registration.pattern).map_err(|it| BackendError::Refused(it.to_string()))?;
        let member = self.connection.member;
        self.connection.shared.call(|server| {
            let key = match registration.scope {
                Scope::Broadcast if registration.durable => durable_queue(&registration.name, &self.instance),
                Scope::Broadcast => own_queue(&registration.name, member),
                _ => registration.name.to_string(),
            };
            if !server.queues.contains_key(&key) {
                let missed = server.stored_from(&registration.start)?;
                let queue = Queue { pattern: Some(pattern.clone()), ..Queue::default() };
                let missed: Vec<EventId> = missed.into_iter().filter(|id| queue.matches(&server.events[id])).collect();
                server.queues.insert(key.clone(), queue);
                missed.iter().for_each(|id| server.give(&key, id, false));
            }
            let queue = server.queues.entry(key).or_default();
            let known = queue.pattern.get_or_insert_with(|| pattern.clone());
            if *known != pattern && registration.change_pattern {
                *known = pattern;
            } else if *known != pattern {
                return Err(BackendError::Refused(format!("its pattern is {known}, not {pattern}")));
            }
            queue.members.insert(member);
            Ok(())
        })
    }

    fn unregister(&mut self, name: &str) -> Result<(), BackendError> {
        self.connection.shared.call(|server| {
            server.leave(self.connection.member, name);
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> Result<bool, BackendError> {
        self.connection.shared.call(|server| {
            let key = server.queue_of(self.connection.member, name);
            Ok(server.remove_queue(&key).is_some())
        })
    }

    fn settle(&mut self, settlements: &[provider::Settlement]) -> Result<Vec<LeaseToken>, BackendError> {
        self.connection.shared.lock().settles += 1;
        self.connection.shared.changed.notify_all();
        let held = |server: &mut Server| server.faults.settles_held;
        drop(
            self.connection
                .shared
                .changed
                .wait_while(self.connection.shared.lock(), held)
                .expect("no panic under the lock"),
        );
        self.connection.shared.call(|server| {
            Ok(settlements.iter().filter(|it| !server.settle(it.token, &it.outcome)).map(|it| it.token).collect())
        })
    }

    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError> {
        self.connection.shared.call(|server| {
            let Some(lease) = server.leases.get_mut(&token) else { return Ok(false) };
            lease.marked = begun;
            let count = if begun { &mut server.marks.0 } else { &mut server.marks.1 };
            *count += 1;
            if !begun {
                let survived = (lease.queue.clone(), lease.number);
                server.suspects.remove(&survived);
            }
            Ok(true)
        })
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.connection.shared.lock().lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        self.connection.shared.call(|server| {
            let now = Instant::now();
            server.take_back(|lease| lease.ends <= now);
            let ends = now + server.lease_time;
            let mut lost = Vec::new();
            for token in tokens {
                match server.leases.get_mut(token) {
                    Some(lease) => {
                        lease.ends = ends;
                        server.extensions += 1;
                    }
                    None => lost.push(*token),
                }
            }
            Ok(lost)
        })
    }
}

impl Drop for LoopbackSettler {
    fn drop(&mut self) {
        let member = self.connection.member;
        let mut server = self.connection.shared.lock();
        let own = format!(" at {member}");
        for key in server.queues.keys().cloned().collect::<Vec<_>>() {
            let name = key.strip_suffix(&own).unwrap_or(&key);
            if name == key {
                server.queues.get_mut(&key).map(|queue| queue.members.remove(&member));
            } else {
                server.leave(member, name);
            }
        }
        server.instances.retain(|_, holder| *holder != member);
        drop(server);
        self.connection.shared.changed.notify_all();
    }
}

impl EventStore for Connection {
    fn put(&self, event: &Event) -> Result<(), BackendError> {
        self.shared.call(|server| match server.hold(event, self.member) {
            SendOutcome::Refused(reason) => Err(BackendError::Refused(reason)),
            SendOutcome::Conflict => Err(BackendError::Refused("known with other content".to_owned())),
            _ => Ok(()),
        })
    }

    fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError> {
        self.shared.call(|server| Ok(server.events.get(id).cloned()))
    }

    fn list(&self, filter: &Filter) -> Result<Page, BackendError> {
        self.shared.call(|server| {
            let matching = server.events.values().filter(|event| filter.matches(event)).cloned();
            let limit = filter.effective_limit();
            let events: Vec<Event> = match filter.order {
                Order::OldestFirst => matching.take(limit).collect(),
                Order::NewestFirst => matching.rev().take(limit).collect(),
            };
            let next = events.last().filter(|_| events.len() == limit).map(|event| event.id().clone());
            Ok(Page::new(events, next))
        })
    }

    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError> {
        self.shared.call(|server| {
            let member = self.member;
            for change in changes {
                let (status, error) = (change.status, change.error.clone());
                server.update(&change.id, |units| {
                    if units.origin == member {
                        units.retries = units.retries.max(change.retry_count);
                        units.reported = Some((status, error));
                    }
                });
            }
            Ok(())
        })
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        self.shared.call(|server| {
            server.units.remove(id);
            server.log.retain(|it| it != id);
            Ok(server.events.remove(id).is_some())
        })
    }

    fn stats(&self) -> Result<StoreStats, BackendError> {
        self.shared.call(|server| {
            let mut stats = StoreStats::default();
            for event in server.events.values() {
                stats.events += 1;
                match event.status() {
                    Status::Pending => stats.pending += 1,
                    Status::Processing => stats.processing += 1,
                    Status::Completed => stats.completed += 1,
                    Status::Failed => stats.failed += 1,
                }
            }
            Ok(stats)
        })
    }
}
