//! A back end in this process, for tests: what several brokers would reach over a network is a log behind a mutex here.
//!
//! It keeps events by id, a queue for each subscription name that was ever registered, and leases with tokens and an end.
//! It can be made to fail in the ways in which a real one fails. Everything that happens to it can be
//! [waited for](Loopback::wait_until).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use eventbroker::provider;
use eventbroker::provider::{
    BackendError, Capabilities, EventStore, Ingest, Lease, LeaseOutcome, LeaseToken, Mirror, Provider, Registration,
    Room, SendOutcome, Settler, StatusChange, Waker,
};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Broker, BrokerBuilder, Event, EventId, Pattern, Scope, Status};

use crate::{Abilities, Subject};

/// How long a test waits for something to happen here, at most.
const PATIENCE: Duration = Duration::from_secs(15);

/// The back end. A clone is another handle to the same one.
#[derive(Debug, Clone, Default)]
pub struct Loopback(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    server: Mutex<Server>,
    changed: Condvar,
}

/// What the back end holds, and what happened to it. All counts only grow.
#[derive(Debug)]
pub struct Server {
    /// The events with their status, by id.
    pub events: BTreeMap<EventId, Event>,
    /// What each subscription name has before it.
    pub queues: BTreeMap<String, Queue>,
    /// Calls of `settle`, failed ones included.
    pub settles: u64,
    /// Marks that were made, and those that were taken back.
    pub marks: (u64, u64),
    /// Calls of `send`, failed ones included.
    pub sends: u64,
    /// Leases that were extended, each time counted.
    pub extensions: u64,
    /// Calls that were answered with an error.
    pub failures: u64,
    /// Leases that were settled while they were held, in that order.
    pub settlements: Vec<Settlement>,
    /// What the statuses come from.
    units: BTreeMap<EventId, Units>,
    offers_broadcast: bool,
    lease_time: Duration,
    faults: Faults,
    leases: BTreeMap<LeaseToken, Leased>,
    /// Deliveries that came back from a lost lease, by queue and number, with their crashes.
    suspects: BTreeMap<(String, u64), u32>,
    /// Wake-ups of its ingests.
    wakes: u64,
    /// Numbers queue entries, leases and members.
    next: u64,
}

/// The deliveries of one subscription name.
#[derive(Debug, Default)]
pub struct Queue {
    /// Connections that serve it.
    pub members: BTreeSet<u64>,
    /// What nobody has leased, oldest first.
    pub waiting: BTreeMap<u64, EventId>,
    /// Leases that are held.
    pub leased: usize,
    /// The most that were held at once.
    pub most_leased: usize,
    /// Connections whose latest call asked for its deliveries.
    pub asked_by: BTreeSet<u64>,
    pattern: Option<Pattern>,
}

/// A lease that was settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The subscription.
    pub name: String,
    /// The event.
    pub id: EventId,
    /// How.
    pub outcome: LeaseOutcome,
}

/// What is known of the deliveries of one event.
#[derive(Debug)]
struct Units {
    /// The event as it was sent.
    sent: Event,
    /// Deliveries that are waiting or leased, and those of them that are leased.
    open: usize,
    leased: usize,
    done: usize,
    /// Those that died: at which member, and of what.
    dead: Vec<(u64, String)>,
    /// What members told of deliveries that were not leased.
    told: BTreeMap<u64, (Status, Option<String>)>,
}

impl Units {
    /// The event with the status that follows from all of it.
    fn event(&self) -> Event {
        let is_open = |status: Status| matches!(status, Status::Pending | Status::Processing);
        let failed = self.told.values().filter(|(status, _)| *status == Status::Failed);
        let mut errors = self.dead.iter().map(|(_, error)| Some(error)).chain(failed.map(|(_, error)| error.as_ref()));
        let begun = self.leased + self.done + self.dead.len() + self.told.len() > 0;
        let (status, error) = if self.open > 0 || self.told.values().any(|(status, _)| is_open(*status)) {
            (if begun { Status::Processing } else { Status::Pending }, None)
        } else {
            match errors.next() {
                Some(error) => (Status::Failed, error.cloned()),
                None => (Status::Completed, None),
            }
        };
        self.sent.clone().with_status(status, error)
    }
}

#[derive(Debug)]
struct Leased {
    member: u64,
    name: String,
    queue: String,
    number: u64,
    id: EventId,
    ends: Instant,
    /// A call of it was marked and has not ended.
    marked: bool,
}

#[derive(Debug, Default)]
struct Faults {
    unavailable: bool,
    refusal: Option<String>,
    answers_to_lose: u32,
    sends_held: bool,
    registrations_held: bool,
    receives_held: bool,
    settles_held: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            events: BTreeMap::new(),
            queues: BTreeMap::new(),
            sends: 0,
            extensions: 0,
            failures: 0,
            settlements: Vec::new(),
            units: BTreeMap::new(),
            offers_broadcast: false,
            lease_time: Duration::from_secs(5),
            faults: Faults::default(),
            leases: BTreeMap::new(),
            suspects: BTreeMap::new(),
            wakes: 0,
            settles: 0,
            marks: (0, 0),
            next: 0,
        }
    }
}

impl Loopback {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one that offers broadcast as well.
    pub fn with_broadcast() -> Self {
        let loopback = Self::default();
        loopback.change(|server| server.offers_broadcast = true);
        loopback
    }

    /// A connection for one broker, with store, mirror and ingest. It offers groups, and broadcast if the loopback was made with
    /// that.
    pub fn provider(&self) -> Provider {
        let mut capabilities = Capabilities::none().with_groups().with_durability().with_instances();
        capabilities.broadcast = self.look(|server| server.offers_broadcast);
        let member = self.change(Server::number);
        Provider::new("loopback", capabilities)
            .with_store(Arc::new(Connection { shared: Arc::clone(&self.0), member }))
            .with_mirror(Box::new(Connection { shared: Arc::clone(&self.0), member }))
            .with_ingest(
                Box::new(LoopbackIngest { connection: Connection { shared: Arc::clone(&self.0), member }, heard: 0 }),
                Box::new(LoopbackSettler(Connection { shared: Arc::clone(&self.0), member })),
            )
    }

    /// How long a lease lasts. Default 5 s; it wants to be extended each third of that.
    pub fn set_lease_time(&self, time: Duration) {
        self.change(|server| server.lease_time = time);
    }

    /// From now on it can't be reached, or can be again.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.change(|server| server.faults.unavailable = unavailable);
    }

    /// From now on it refuses each new event with this reason, or takes them again.
    pub fn refuse(&self, reason: Option<&str>) {
        self.change(|server| server.faults.refusal = reason.map(str::to_owned));
    }

    /// It stores the events of the next `count` sends, and the sender never learns of it.
    pub fn lose_answers(&self, count: u32) {
        self.change(|server| server.faults.answers_to_lose = count);
    }

    /// From now on a send waits before it stores anything, or goes on.
    pub fn hold_sends(&self, hold: bool) {
        self.change(|server| server.faults.sends_held = hold);
    }

    /// From now on a registration waits, or goes on.
    pub fn hold_registrations(&self, hold: bool) {
        self.change(|server| server.faults.registrations_held = hold);
    }

    /// From now on whoever asks for deliveries waits, or goes on.
    pub fn hold_receives(&self, hold: bool) {
        self.change(|server| server.faults.receives_held = hold);
    }

    /// From now on a call of `settle` waits, or goes on.
    pub fn hold_settles(&self, hold: bool) {
        self.change(|server| server.faults.settles_held = hold);
    }

    /// All leases end at this moment, whoever holds them.
    pub fn expire_leases(&self) {
        self.change(|server| server.take_back(|_| true));
    }

    /// The holders of all leases have died `crashes` times of what they ran, and the leases end.
    pub fn crash_holders(&self, crashes: u32) {
        self.change(|server| {
            let held = server.leases.values().map(|lease| ((lease.queue.clone(), lease.number), crashes));
            server.suspects.extend(held.collect::<Vec<_>>());
            server.take_back(|_| true);
        });
    }

    /// Looks at something.
    pub fn look<T>(&self, at: impl FnOnce(&Server) -> T) -> T {
        at(&self.0.lock())
    }

    /// Waits until a condition holds. Panics if it does not come to pass.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Server) -> bool) {
        let (server, waited) = self
            .0
            .changed
            .wait_timeout_while(self.0.lock(), PATIENCE, |server| !holds(server))
            .expect("no panic under the lock");
        assert!(!waited.timed_out(), "it did not come to pass: {what}; {server:#?}");
    }

    /// The status that is noted for an event.
    pub fn status(&self, id: &EventId) -> Option<Status> {
        self.look(|server| server.events.get(id).map(Event::status))
    }

    fn change<T>(&self, how: impl FnOnce(&mut Server) -> T) -> T {
        let result = how(&mut self.0.lock());
        self.0.changed.notify_all();
        result
    }
}

/// The suite's subject.
impl Subject for Loopback {
    fn abilities(&self) -> Abilities {
        Abilities {
            ordered: true,
            exact: true,
            durable: true,
            across_instances: true,
            groups: true,
            broadcast: self.look(|server| server.offers_broadcast),
            query: true,
            restart: true,
            ..Abilities::default()
        }
    }

    fn broker(&self, builder: BrokerBuilder) -> Broker {
        builder.provider(self.provider()).start().expect("it starts")
    }

    fn restart(&self) {
        let before = self.change(|server| {
            server.faults.unavailable = true;
            server.failures
        });
        self.wait_until("somebody notices that it has gone", |server| server.failures > before + 2);
        self.change(|server| {
            server.faults.unavailable = false;
            server.take_back(|_| true);
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Server> {
        self.server.lock().expect("no panic under the lock")
    }

    /// Does what a client asks for, if it can be reached.
    fn call<T>(&self, how: impl FnOnce(&mut Server) -> Result<T, BackendError>) -> Result<T, BackendError> {
        let mut server = self.lock();
        let result = if server.faults.unavailable { Err(server.away()) } else { how(&mut server) };
        server.failures += u64::from(result.is_err());
        drop(server);
        self.changed.notify_all();
        result
    }
}

impl Server {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn away(&self) -> BackendError {
        BackendError::Unavailable("the loopback was switched off".to_owned())
    }

    /// Leases that are held.
    pub fn leased(&self) -> usize {
        self.leases.len()
    }

    /// How often leases of a name were settled in this way.
    pub fn settled(&self, name: &str, outcome: LeaseOutcome) -> usize {
        self.settlements.iter().filter(|it| it.name == name && it.outcome == outcome).count()
    }

    fn hold(&mut self, event: &Event) -> SendOutcome {
        if let Some(known) = self.events.get(event.id()) {
            return if known.same_content(event) { SendOutcome::Known } else { SendOutcome::Conflict };
        }
        if let Some(reason) = &self.faults.refusal {
            return SendOutcome::Refused(reason.clone());
        }
        let number = self.number();
        let mut open = 0;
        for queue in self.queues.values_mut() {
            if queue.pattern.as_ref().is_some_and(|pattern| pattern.matches(event.event_type().as_str())) {
                queue.waiting.insert(number, event.id().clone());
                open += 1;
            }
        }
        let (dead, told) = (Vec::new(), BTreeMap::new());
        self.units.insert(event.id().clone(), Units { sent: event.clone(), open, leased: 0, done: 0, dead, told });
        self.update(event.id(), |_| ());
        SendOutcome::Held
    }

    /// Notes something about the deliveries of an event. False if it is not known.
    fn update(&mut self, id: &EventId, how: impl FnOnce(&mut Units)) -> bool {
        let Some(units) = self.units.get_mut(id) else { return false };
        how(units);
        self.events.insert(id.clone(), units.event());
        true
    }

    /// Takes leases back, as if they had run out.
    fn take_back(&mut self, which: impl Fn(&Leased) -> bool) {
        let (back, kept) = std::mem::take(&mut self.leases).into_iter().partition(|(_, lease)| which(lease));
        self.leases = kept;
        let back: BTreeMap<LeaseToken, Leased> = back;
        for lease in back.into_values() {
            *self.suspects.entry((lease.queue.clone(), lease.number)).or_default() += u32::from(lease.marked);
            self.give_back(lease);
        }
    }

    fn give_back(&mut self, lease: Leased) {
        let queue = self.queues.get_mut(&lease.queue);
        let gone = usize::from(queue.is_none());
        if let Some(queue) = queue {
            queue.leased -= 1;
            queue.waiting.insert(lease.number, lease.id.clone());
        }
        self.update(&lease.id, |units| {
            units.leased -= 1;
            units.open -= gone;
        });
    }

    /// Ends a lease. False if it was lost before.
    fn settle(&mut self, token: LeaseToken, outcome: &LeaseOutcome) -> bool {
        let Some(lease) = self.leases.remove(&token) else { return false };
        let settlement = Settlement { name: lease.name.clone(), id: lease.id.clone(), outcome: outcome.clone() };
        self.settlements.push(settlement);
        if *outcome == LeaseOutcome::Released {
            self.give_back(lease);
            return true;
        }
        if let Some(queue) = self.queues.get_mut(&lease.queue) {
            queue.leased -= 1;
        }
        self.suspects.remove(&(lease.queue, lease.number));
        self.update(&lease.id, |units| {
            units.open -= 1;
            units.leased -= 1;
            match outcome {
                LeaseOutcome::Dead { error, .. } => units.dead.push((lease.member, error.clone())),
                _ => units.done += 1,
            }
        });
        true
    }

    /// A member serves a subscription no longer. A queue that it alone has goes with it.
    fn leave(&mut self, member: u64, name: &str) {
        if let Some(own) = self.queues.remove(&own_queue(name, member)) {
            own.waiting.values().for_each(|id| _ = self.update(id, |units| units.open -= 1));
        } else if let Some(queue) = self.queues.get_mut(name) {
            queue.members.remove(&member);
        }
    }

    /// The queue of a subscription for a member.
    fn queue_of(&self, member: u64, name: &str) -> String {
        let own = own_queue(name, member);
        if self.queues.contains_key(&own) { own } else { name.to_owned() }
    }

    /// What a member can have of a subscription.
    fn has_for(&self, member: u64, room: &Room) -> bool {
        let queue = self.queues.get(&self.queue_of(member, &room.subscription));
        queue.is_some_and(|queue| queue.members.contains(&member) && !queue.waiting.is_empty())
    }

    /// Leases the oldest delivery of a subscription to a member.
    fn lease(&mut self, member: u64, name: &str) -> Option<Lease> {
        let key = self.queue_of(member, name);
        let queue = self.queues.get_mut(&key).filter(|queue| queue.members.contains(&member))?;
        let (number, id) = queue.waiting.pop_first()?;
        queue.leased += 1;
        queue.most_leased = queue.most_leased.max(queue.leased);
        let token = LeaseToken(self.number());
        self.update(&id, |units| units.leased += 1);
        let event = self.units.get(&id)?.sent.clone();
        let ends = Instant::now() + self.lease_time;
        let lease = Lease::new(token, name, event);
        let suspicion = self.suspects.get(&(key.clone(), number)).copied();
        self.leases
            .insert(token, Leased { member, name: name.to_owned(), queue: key, number, id, ends, marked: false });
        Some(match suspicion {
            Some(crashes) => lease.suspected(crashes),
            None => lease,
        })
    }
}

/// A broadcast subscription has a queue for each member.
fn own_queue(name: &str, member: u64) -> String {
    format!("{name} at {member}")
}

/// One of the three connections of a broker.
#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    member: u64,
}

impl Mirror for Connection {
    fn send(&mut self, batch: &[Event]) -> Result<Vec<SendOutcome>, BackendError> {
        let mut server = self.shared.lock();
        server.sends += 1;
        self.shared.changed.notify_all();
        let held = |server: &mut Server| server.faults.sends_held;
        drop(self.shared.changed.wait_while(server, held).expect("no panic under the lock"));
        self.shared.call(|server| {
            let outcomes = batch.iter().map(|event| server.hold(event)).collect();
            if server.faults.answers_to_lose > 0 {
                server.faults.answers_to_lose -= 1;
                return Err(BackendError::Unavailable("the answer was lost".to_owned()));
            }
            Ok(outcomes)
        })
    }
}

#[derive(Debug)]
struct LoopbackIngest {
    connection: Connection,
    /// Wake-ups that it has heard.
    heard: u64,
}

impl LoopbackIngest {
    /// Whether somebody has woken it since it was asked last.
    fn is_woken(&mut self, server: &Server) -> bool {
        std::mem::replace(&mut self.heard, server.wakes) != server.wakes
    }
}

impl Ingest for LoopbackIngest {
    fn receive(&mut self, room: &[Room], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let (shared, member) = (Arc::clone(&self.connection.shared), self.connection.member);
        let deadline = Instant::now() + wait;
        shared.call(|server| {
            let asked: BTreeSet<String> = room.iter().map(|room| server.queue_of(member, &room.subscription)).collect();
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
                let mut leases = Vec::new();
                for room in room {
                    let more = std::iter::from_fn(|| server.lease(member, &room.subscription));
                    leases.extend(more.take(room.deliveries));
                }
                Ok(Some(leases).filter(|leases| !leases.is_empty() || now >= deadline))
            })?;
            if let Some(leases) = leases {
                return Ok(leases);
            }
            // A lease that runs out is seen at the next call.
            let idle = |server: &mut Server| {
                !server.faults.unavailable
                    && server.wakes == self.heard
                    && !room.iter().any(|room| server.has_for(member, room))
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

/// Its connection is one that leaves when it is dropped.
#[derive(Debug)]
struct LoopbackSettler(Connection);

impl Settler for LoopbackSettler {
    fn register(&mut self, registration: &Registration) -> Result<(), BackendError> {
        let held = |server: &mut Server| server.faults.registrations_held;
        drop(self.0.shared.changed.wait_while(self.0.shared.lock(), held).expect("no panic under the lock"));
        let pattern = Pattern::parse(&registration.pattern).map_err(|it| BackendError::Refused(it.to_string()))?;
        self.0.shared.call(|server| {
            let key = match registration.scope {
                Scope::Broadcast => own_queue(&registration.name, self.0.member),
                _ => registration.name.to_string(),
            };
            let queue = server.queues.entry(key).or_default();
            let known = queue.pattern.get_or_insert_with(|| pattern.clone());
            if *known != pattern {
                return Err(BackendError::Refused(format!("its pattern is {known}, not {pattern}")));
            }
            queue.members.insert(self.0.member);
            Ok(())
        })
    }

    fn unregister(&mut self, name: &str) -> Result<(), BackendError> {
        self.0.shared.call(|server| {
            server.leave(self.0.member, name);
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> Result<bool, BackendError> {
        self.0.shared.call(|server| {
            let Some(queue) = server.queues.remove(name) else { return Ok(false) };
            queue.waiting.values().for_each(|id| _ = server.update(id, |units| units.open -= 1));
            Ok(true)
        })
    }

    fn settle(&mut self, settlements: &[provider::Settlement]) -> Result<Vec<LeaseToken>, BackendError> {
        self.0.shared.lock().settles += 1;
        self.0.shared.changed.notify_all();
        let held = |server: &mut Server| server.faults.settles_held;
        drop(self.0.shared.changed.wait_while(self.0.shared.lock(), held).expect("no panic under the lock"));
        self.0.shared.call(|server| {
            Ok(settlements.iter().filter(|it| !server.settle(it.token, &it.outcome)).map(|it| it.token).collect())
        })
    }

    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError> {
        self.0.shared.call(|server| {
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
        Some(self.0.shared.lock().lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        self.0.shared.call(|server| {
            let ends = Instant::now() + server.lease_time;
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
        let mut server = self.0.shared.lock();
        let served = |queue: &Queue| queue.members.contains(&self.0.member);
        let own = format!(" at {}", self.0.member);
        let queues = server.queues.iter().filter(|(_, queue)| served(queue));
        let names: Vec<String> = queues.map(|(key, _)| key.strip_suffix(&own).unwrap_or(key).to_owned()).collect();
        names.iter().for_each(|name| server.leave(self.0.member, name));
        drop(server);
        self.0.shared.changed.notify_all();
    }
}

impl EventStore for Connection {
    fn put(&self, event: &Event) -> Result<(), BackendError> {
        self.shared.call(|server| match server.hold(event) {
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
                let (status, mut error) = (change.status, change.error.clone());
                server.update(&change.id, |units| {
                    // A member's word covers all that it did, requeued dead letters included.
                    let covered = units.dead.extract_if(.., |(of, _)| *of == member).last();
                    if status == Status::Failed && error.is_none() {
                        error = covered.map(|(_, error)| error);
                    }
                    units.told.insert(member, (status, error));
                });
            }
            Ok(())
        })
    }

    fn delete(&self, id: &EventId) -> Result<bool, BackendError> {
        self.shared.call(|server| {
            server.units.remove(id);
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
