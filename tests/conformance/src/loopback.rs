//! A back end in this process, for tests: what several brokers would reach over a network is a log behind a mutex here.
//!
//! It keeps events by id, a queue for each subscription name that was ever registered, and leases with tokens and an end. What
//! operators ask of it is in `loopback/operator.rs`, the retries that it keeps in `loopback/deferred.rs`.
//! It can be made to fail in the ways in which a real one fails. Everything that happens to it can be
//! [waited for](Loopback::wait_until).

mod deferred;
mod operator;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use eventbroker::dead_letter::{AttemptError, DeadLetter};
use eventbroker::provider;
use eventbroker::provider::{
    BackendError, Capabilities, EventStore, Ingest, Lease, LeaseOutcome, LeaseToken, Mirror, Provider, Registration,
    Room, SendOutcome, Settler, StatusChange, Waker,
};
use eventbroker::query::{Filter, Order, Page};
use eventbroker::stats::StoreStats;
use eventbroker::{Event, EventId, Pattern, Scope, Status};

use crate::{Abilities, Subject};
use deferred::Deferred;

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
    /// The dead letters, by number.
    pub dead_letters: BTreeMap<u64, Dead>,
    /// The ids of the events in the order in which they were stored.
    log: Vec<EventId>,
    /// Which connection has the name of an instance.
    instances: BTreeMap<String, u64>,
    /// What the statuses come from.
    units: BTreeMap<EventId, Units>,
    offers_broadcast: bool,
    keeps_no_retries: bool,
    lease_time: Duration,
    faults: Faults,
    leases: BTreeMap<LeaseToken, Leased>,
    /// Deliveries that came back from a lost lease, by queue and number, with their crashes.
    suspects: BTreeMap<(String, u64), u32>,
    /// Retries that are not due yet.
    deferred: Vec<Deferred>,
    /// What was tried of deliveries that were deferred and have not ended, by queue and number: calls, and what they failed of.
    tried: BTreeMap<(String, u64), (u32, Vec<AttemptError>)>,
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
    /// The events that it was ever given, and whether their statuses depend on that.
    given: BTreeMap<EventId, bool>,
    /// How often dead letters of an event were requeued.
    requeues: BTreeMap<EventId, u32>,
}

impl Queue {
    /// The number of the oldest that may be handed over.
    fn first(&self, faults: &Faults) -> Option<u64> {
        self.waiting.iter().find(|(_, id)| faults.withheld.as_ref() != Some(*id)).map(|(number, _)| *number)
    }
}

/// A delivery that died.
#[derive(Debug)]
pub struct Dead {
    /// What is told of it.
    pub letter: DeadLetter,
    queue: String,
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
    /// The event as it was sent, and by which member.
    sent: Event,
    origin: u64,
    /// Deliveries that are waiting or leased, and those of them that are leased.
    open: usize,
    leased: usize,
    done: usize,
    /// Those that died: of what, by the number of the dead letter.
    dead: BTreeMap<u64, String>,
    /// What its member told of deliveries that were not leased.
    told: Option<(Status, Option<String>)>,
    retries: u32,
    /// A delivery that had ended was made again, or one was deferred.
    reopened: bool,
}

impl Units {
    /// The event with the status that follows from all of it.
    fn event(&self) -> Event {
        let is_open = |status: Status| matches!(status, Status::Pending | Status::Processing);
        let failed = self.told.iter().filter(|(status, _)| *status == Status::Failed);
        let mut errors = self.dead.values().map(Some).chain(failed.map(|(_, error)| error.as_ref()));
        let begun =
            self.leased + self.done + self.dead.len() + usize::from(self.told.is_some()) + usize::from(self.reopened)
                > 0;
        let (status, error) = if self.open > 0 || self.told.iter().any(|(status, _)| is_open(*status)) {
            (if begun { Status::Processing } else { Status::Pending }, None)
        } else {
            match errors.next() {
                Some(error) => (Status::Failed, error.cloned()),
                None => (Status::Completed, None),
            }
        };
        self.sent.clone().with_progress(status, self.retries, None, None, error)
    }
}

#[derive(Debug)]
struct Leased {
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
    /// An event that nobody gets.
    withheld: Option<EventId>,
    /// What it hands over was asked for so long ago.
    delay: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            events: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            log: Vec::new(),
            instances: BTreeMap::new(),
            queues: BTreeMap::new(),
            sends: 0,
            extensions: 0,
            failures: 0,
            settlements: Vec::new(),
            units: BTreeMap::new(),
            offers_broadcast: false,
            keeps_no_retries: false,
            lease_time: Duration::from_secs(5),
            faults: Faults::default(),
            leases: BTreeMap::new(),
            suspects: BTreeMap::new(),
            deferred: Vec::new(),
            tried: BTreeMap::new(),
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

    /// An empty one that keeps no retries.
    pub fn without_deferred_retries() -> Self {
        let loopback = Self::default();
        loopback.change(|server| server.keeps_no_retries = true);
        loopback
    }

    /// A connection for one broker, with store, mirror, ingest and operator. It offers all there is; broadcast only if the loopback
    /// was made with that.
    pub fn provider(&self) -> Provider {
        let mut capabilities = Capabilities::none().with_groups().with_durability().with_instances();
        capabilities = capabilities.with_order_per_subscription();
        capabilities = capabilities.with_start_positions().with_replay().with_tail();
        capabilities.deferred_retries = self.look(|server| !server.keeps_no_retries);
        capabilities.broadcast = self.look(|server| server.offers_broadcast);
        capabilities.durable_broadcast = capabilities.broadcast;
        let member = self.change(Server::number);
        Provider::new("loopback", capabilities)
            .with_store(Arc::new(Connection { shared: Arc::clone(&self.0), member }))
            .with_mirror(Box::new(Connection { shared: Arc::clone(&self.0), member }))
            .with_ingest(
                Box::new(LoopbackIngest { connection: Connection { shared: Arc::clone(&self.0), member }, heard: 0 }),
                Box::new(LoopbackSettler {
                    connection: Connection { shared: Arc::clone(&self.0), member },
                    instance: String::new(),
                }),
            )
            .with_operator(Arc::new(Connection { shared: Arc::clone(&self.0), member }))
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

    /// From now on what it hands over was asked for so long ago: as if the process had stood still before it read the answer.
    pub fn answer_late(&self, delay: Duration) {
        self.change(|server| server.faults.delay = delay);
    }

    /// From now on a call of `settle` waits, or goes on.
    pub fn hold_settles(&self, hold: bool) {
        self.change(|server| server.faults.settles_held = hold);
    }

    /// Somebody else takes the name of an instance, also while it can't be reached from here.
    pub fn take_name(&self, instance: &str) {
        self.change(|server| {
            let somebody = server.number();
            server.instances.insert(instance.to_owned(), somebody);
        });
    }

    /// All leases end at this moment, whoever holds them.
    pub fn expire_leases(&self) {
        self.change(|server| server.take_back(|_| true));
    }

    /// The leases on an event end before they should.
    pub fn expire_lease(&self, id: &EventId) {
        self.change(|server| server.take_back(|lease| lease.id == *id));
    }

    /// From now on nobody gets this event, or again everybody gets all.
    pub fn withhold(&self, id: Option<&EventId>) {
        self.change(|server| server.faults.withheld = id.cloned());
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
        let broadcast = self.look(|server| server.offers_broadcast);
        Abilities { broadcast, durable_broadcast: broadcast, restart: true, ..Abilities::shared() }
    }

    fn provider(&self) -> Provider {
        Self::provider(self)
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

    /// Whether somebody has the name of an instance.
    pub fn has_name(&self, instance: &str) -> bool {
        self.instances.contains_key(instance)
    }

    /// How many leases of a name were settled as done.
    pub fn done(&self, name: &str) -> usize {
        self.count_settled(name, |outcome| matches!(outcome, LeaseOutcome::Done { .. }))
    }

    /// How many leases of a name were given back.
    pub fn released(&self, name: &str) -> usize {
        self.count_settled(name, |outcome| *outcome == LeaseOutcome::Released)
    }

    fn count_settled(&self, name: &str, how: impl Fn(&LeaseOutcome) -> bool) -> usize {
        self.settlements.iter().filter(|it| it.name == name && how(&it.outcome)).count()
    }

    fn hold(&mut self, event: &Event, origin: u64) -> SendOutcome {
        if let Some(known) = self.events.get(event.id()) {
            return if known.same_content(event) { SendOutcome::Known } else { SendOutcome::Conflict };
        }
        if let Some(reason) = &self.faults.refusal {
            return SendOutcome::Refused(reason.clone());
        }
        let (dead, told) = (BTreeMap::new(), None);
        self.units.insert(
            event.id().clone(),
            Units { sent: event.clone(), origin, open: 0, leased: 0, done: 0, dead, told, retries: 0, reopened: false },
        );
        self.log.push(event.id().clone());
        let matches = |queue: &Queue| queue.matches(event);
        let keys: Vec<String> =
            self.queues.iter().filter(|(_, queue)| matches(queue)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.give(key, event.id(), true));
        self.update(event.id(), |_| ());
        SendOutcome::Held
    }

    /// Gives an event to a queue.
    fn give(&mut self, key: &str, id: &EventId, counts: bool) {
        let number = self.number();
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.waiting.insert(number, id.clone());
        queue.given.insert(id.clone(), counts);
        self.update(id, |units| units.open += usize::from(counts));
    }

    /// Whether the status of an event depends on its delivery to a queue: 1 if so, else 0.
    fn counts(&self, key: &str, id: &EventId) -> usize {
        self.queues.get(key).and_then(|queue| queue.given.get(id)).map_or(0, |counts| usize::from(*counts))
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
        let counts = self.counts(&lease.queue, &lease.id);
        let Some(queue) = self.queues.get_mut(&lease.queue) else { return };
        queue.leased -= 1;
        queue.waiting.insert(lease.number, lease.id.clone());
        self.update(&lease.id, |units| units.leased -= counts);
    }

    /// Removes a queue with all that is in it, leased or not.
    fn remove_queue(&mut self, key: &str) -> Option<Queue> {
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

    /// Ends a lease. False if it was lost before.
    fn settle(&mut self, token: LeaseToken, outcome: &LeaseOutcome) -> bool {
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

    /// A member serves a subscription no longer. A queue that it alone has goes with it, unless that is durable.
    fn leave(&mut self, member: u64, name: &str) {
        let key = self.queue_of(member, name);
        let Some(queue) = self.queues.get_mut(&key) else { return };
        queue.members.remove(&member);
        if key == own_queue(name, member) {
            self.remove_queue(&key);
        }
    }

    /// The queue of a subscription for a member.
    fn queue_of(&self, member: u64, name: &str) -> String {
        let instance = self.instances.iter().find(|(_, holder)| **holder == member);
        let durable = instance.map(|(instance, _)| durable_queue(name, instance));
        let own = own_queue(name, member);
        [Some(own), durable]
            .into_iter()
            .flatten()
            .find(|key| self.queues.contains_key(key))
            .unwrap_or_else(|| name.to_owned())
    }

    /// What a member can have of a subscription.
    fn has_for(&self, member: u64, room: &Room) -> bool {
        let queue = self.queues.get(&self.queue_of(member, &room.subscription));
        queue.is_some_and(|queue| queue.members.contains(&member) && queue.first(&self.faults).is_some())
    }

    /// Leases the oldest delivery of a subscription to a member.
    fn lease(&mut self, member: u64, name: &str) -> Option<Lease> {
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

/// A broadcast subscription has a queue for each member.
fn own_queue(name: &str, member: u64) -> String {
    format!("{name} at {member}")
}

/// A durable one has a queue for each instance.
fn durable_queue(name: &str, instance: &str) -> String {
    format!("{name} of {instance}")
}

impl Queue {
    fn matches(&self, event: &Event) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| pattern.matches(event.event_type().as_str()))
    }
}

/// One of the connections of a broker.
#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    member: u64,
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
                server.bring_back(|deferred| deferred.due <= now);
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
struct LoopbackSettler {
    connection: Connection,
    instance: String,
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
                        units.told = Some((status, error));
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
