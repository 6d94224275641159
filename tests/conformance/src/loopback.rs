//! A back end in this process, for tests: what several brokers would reach over a network is a log behind a mutex here.
//!
//! It keeps events by id, a queue for each subscription name that was ever registered, and leases with tokens and an end. What
//! operators ask of it is in `loopback/operator.rs`, the retries that it keeps in `loopback/deferred.rs`, what happens in it in
//! `loopback/server.rs`, and the parts of a provider in `loopback/parts.rs`.
//! It can be made to fail in the ways in which a real one fails. Everything that happens to it can be
//! [waited for](Loopback::wait_until).

mod deferred;
mod operator;
mod parts;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use eventbroker::dead_letter::{AttemptError, DeadLetter};
use eventbroker::provider::{BackendError, Capabilities, LeaseOutcome, LeaseToken, Provider};
use eventbroker::{Event, EventId, Pattern, Status};

use crate::{Abilities, Subject};
use deferred::Deferred;
use parts::{Connection, LoopbackIngest, LoopbackSettler};

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
    fn matches(&self, event: &Event) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| pattern.matches(event.event_type().as_str()))
    }

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
