//! A back end in this process, for tests: a log behind a mutex takes the place of a server.
//!
//! It keeps events by id, a queue for each subscription name ever registered, and leases with a token and an end. The
//! verbs of the server are in `loopback/server.rs`, the parts of a provider in `loopback/parts.rs`, the operator in
//! `loopback/operator.rs`, deferred retries in `loopback/deferred.rs`, and the faults that a test can inject in
//! `loopback/faults.rs`. Tests can [wait for](Loopback::wait_until) any state.

mod deferred;
mod faults;
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
use faults::Faults;
use parts::{Connection, LoopbackIngest, LoopbackSettler};

/// Deadline of [`Loopback::wait_until`].
const PATIENCE: Duration = Duration::from_secs(15);

/// The back end. A clone is another handle to the same back end.
#[derive(Debug, Clone, Default)]
pub struct Loopback(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    server: Mutex<Server>,
    changed: Condvar,
}

/// The data of the back end, and counts of its calls. The counts only grow.
#[derive(Debug)]
pub struct Server {
    /// The events with their status, by id.
    pub events: BTreeMap<EventId, Event>,
    /// The queue of each subscription.
    pub queues: BTreeMap<String, Queue>,
    /// Calls of `settle`, failed ones included.
    pub settles: u64,
    /// Marks set, and marks cleared.
    pub marks: (u64, u64),
    /// Calls of `send`, failed ones included.
    pub sends: u64,
    /// Extensions of leases.
    pub extensions: u64,
    /// How many calls of `receive` have begun.
    pub receives: u64,
    /// Calls that returned an error.
    pub failures: u64,
    /// Leases that were settled while they were held, in order.
    pub settlements: Vec<Settlement>,
    /// The dead letters, by number.
    pub dead_letters: BTreeMap<u64, Dead>,
    /// The ids of the events in the order of storing.
    log: Vec<EventId>,
    /// The connection that holds each instance name.
    instances: BTreeMap<String, u64>,
    /// The progress of each event, from which its status is derived.
    units: BTreeMap<EventId, Units>,
    offers_broadcast: bool,
    keeps_no_retries: bool,
    lease_time: Duration,
    faults: Faults,
    leases: BTreeMap<LeaseToken, Leased>,
    /// Deliveries returned by a lost lease, by queue and number, with their crash counts.
    suspects: BTreeMap<(String, u64), u32>,
    /// Retries that are not due yet.
    deferred: Vec<Deferred>,
    /// The attempts and errors of deferred deliveries that have not ended, by queue and number.
    tried: BTreeMap<(String, u64), (u32, Vec<AttemptError>)>,
    /// Calls of the wakers.
    wakes: u64,
    /// The last number given to a queue entry, a lease or a member.
    next: u64,
}

/// The deliveries of one subscription name.
#[derive(Debug, Default)]
pub struct Queue {
    /// Connections that serve the subscription.
    pub members: BTreeSet<u64>,
    /// Deliveries that are not leased, oldest first.
    pub waiting: BTreeMap<u64, EventId>,
    /// Leases held now.
    pub leased: usize,
    /// The highest value of `leased`.
    pub most_leased: usize,
    /// Connections whose latest `receive` asked for this queue.
    pub asked_by: BTreeSet<u64>,
    pattern: Option<Pattern>,
    /// Every event ever added, and whether its status depends on this delivery.
    given: BTreeMap<EventId, bool>,
    /// Requeues by event.
    requeues: BTreeMap<EventId, u32>,
}

impl Queue {
    fn matches(&self, event: &Event) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| pattern.matches(event.event_type().as_str()))
    }

    /// The number of the oldest delivery that is not withheld.
    fn first(&self, faults: &Faults) -> Option<u64> {
        self.waiting.iter().find(|(_, id)| faults.withheld.as_ref() != Some(*id)).map(|(number, _)| *number)
    }
}

/// A dead delivery.
#[derive(Debug)]
pub struct Dead {
    /// Its dead letter.
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
    /// The outcome.
    pub outcome: LeaseOutcome,
}

/// The progress of the deliveries of one event.
#[derive(Debug)]
struct Units {
    /// The event as sent, and the member that sent it.
    sent: Event,
    origin: u64,
    /// Deliveries that are waiting or leased, and how many of them are leased.
    open: usize,
    leased: usize,
    done: usize,
    /// The errors of dead deliveries, by the number of the dead letter.
    dead: BTreeMap<u64, String>,
    /// The status that the sending member reported for deliveries without a lease.
    reported: Option<(Status, Option<String>)>,
    retries: u32,
    /// An ended delivery was repeated by a requeue or a replay, or a delivery was deferred.
    reopened: bool,
}

impl Units {
    /// The event with the status derived from the progress.
    fn event(&self) -> Event {
        let is_open = |status: Status| matches!(status, Status::Pending | Status::Processing);
        let failed = self.reported.iter().filter(|(status, _)| *status == Status::Failed);
        let mut errors = self.dead.values().map(Some).chain(failed.map(|(_, error)| error.as_ref()));
        let begun = self.leased
            + self.done
            + self.dead.len()
            + usize::from(self.reported.is_some())
            + usize::from(self.reopened)
            > 0;
        let (status, error) = if self.open > 0 || self.reported.iter().any(|(status, _)| is_open(*status)) {
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
    /// A call was marked as begun and has not ended.
    marked: bool,
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
            receives: 0,
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
    /// An empty back end without broadcast.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty back end with broadcast.
    pub fn with_broadcast() -> Self {
        let loopback = Self::default();
        loopback.change(|server| server.offers_broadcast = true);
        loopback
    }

    /// An empty back end without deferred retries.
    pub fn without_deferred_retries() -> Self {
        let loopback = Self::default();
        loopback.change(|server| server.keeps_no_retries = true);
        loopback
    }

    /// A connection for one broker, with store, mirror, ingest, settler and operator. All capabilities; broadcast only
    /// if the loopback was created with it.
    pub fn provider(&self) -> Provider {
        let mut capabilities = Capabilities::none().with_groups().with_durability().with_instances();
        capabilities = capabilities.with_order_per_subscription();
        capabilities = capabilities.with_start_positions().with_replay().with_tail();
        capabilities.deferred_retries = self.inspect(|server| !server.keeps_no_retries);
        capabilities.broadcast = self.inspect(|server| server.offers_broadcast);
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

    /// Reads the state under the lock.
    pub fn inspect<T>(&self, at: impl FnOnce(&Server) -> T) -> T {
        at(&self.0.lock())
    }

    /// Waits until a condition holds. Panics after 15 s.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Server) -> bool) {
        let (server, waited) = self
            .0
            .changed
            .wait_timeout_while(self.0.lock(), PATIENCE, |server| !holds(server))
            .expect("no panic under the lock");
        assert!(!waited.timed_out(), "timed out waiting until {what}; {server:#?}");
    }

    /// The status stored for an event.
    pub fn status(&self, id: &EventId) -> Option<Status> {
        self.inspect(|server| server.events.get(id).map(Event::status))
    }

    fn change<T>(&self, how: impl FnOnce(&mut Server) -> T) -> T {
        let result = how(&mut self.0.lock());
        self.0.changed.notify_all();
        result
    }
}

/// The loopback as the subject of its own suite.
impl Subject for Loopback {
    fn abilities(&self) -> Abilities {
        let broadcast = self.inspect(|server| server.offers_broadcast);
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
        self.wait_until("calls have failed", |server| server.failures > before + 2);
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

    /// Runs a call of a client, or fails it if the back end is set unavailable.
    fn call<T>(&self, how: impl FnOnce(&mut Server) -> Result<T, BackendError>) -> Result<T, BackendError> {
        let mut server = self.lock();
        let result = if server.faults.unavailable { Err(server.away()) } else { how(&mut server) };
        server.failures += u64::from(result.is_err());
        drop(server);
        self.changed.notify_all();
        result
    }
}
