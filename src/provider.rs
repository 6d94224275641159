//! The seam to back ends: what a bridge package implements, and what the engine asks of it.
//!
//! A bridge owns its connections and its format; it knows nothing of workers, handlers or retries. The engine owns the
//! threads: one calls the [`Mirror`] (events out), one the [`Ingest`] (deliveries in), one the [`Settler`] (verdicts back), so
//! each may block within the bounds that its verbs state, and needs no locks of its own. Three traits, because a connection
//! that waits for new deliveries can't write at the same time, and a verdict should not wait for a publish. A [`Provider`] is a
//! value, not a trait: what is not there is `None`, and what the back end cannot do is in its [`Capabilities`], so that asking
//! for it is an error at start or subscribe and no surprise later. Two more traits are called from any thread: the [`EventStore`]
//! looks events up, the [`Operator`] has what operators ask for.
//!
//! What lives here: the value, the traits of the engine's threads and of the store, and what their verbs answer. What does not: what a back end
//! offers (`provider/capabilities.rs`), a delivery that it hands over (`provider/lease.rs`), what operators ask for
//! (`provider/operator.rs`), and what bridges share (`provider/backoff.rs`, `provider/busy_poll.rs`, `provider/partition.rs`).

mod backoff;
mod busy_poll;
mod capabilities;
mod lease;
mod operator;
mod partition;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Scope, StartPosition};
use crate::event::{Event, EventId, Status};
pub use crate::outcome::error::BackendError;
use crate::outcome::{Filter, Page, StoreStats};
pub use backoff::Backoff;
pub use busy_poll::BusyPoll;
pub use capabilities::Capabilities;
pub use lease::{Demand, Lease, LeaseOutcome, LeaseToken, Settlement};
pub use operator::{Operator, Replay, Replayed, Tail};
pub use partition::partition_of;

/// What the provider without a back end is called.
pub(crate) const MEMORY: &str = "memory";

/// A back end, ready to be used by one broker.
#[derive(Default)]
#[non_exhaustive]
pub struct Provider {
    /// What it is called, in errors and statistics.
    pub name: String,
    /// Where events can be looked up that this process does not hold (any more).
    pub store: Option<Arc<dyn EventStore>>,
    /// Where accepted events go.
    pub mirror: Option<Box<dyn Mirror>>,
    /// Where deliveries come from, and where their verdicts go.
    pub ingest: Option<(Box<dyn Ingest>, Box<dyn Settler>)>,
    /// What operators ask for. Without one, the dead letters of this instance's deliveries are kept in this process.
    pub operator: Option<Arc<dyn Operator>>,
    /// What it offers.
    pub capabilities: Capabilities,
}

impl Provider {
    /// Events live in this process only. The default of a broker.
    pub fn memory() -> Self {
        Self { name: MEMORY.to_owned(), ..Self::default() }
    }

    /// A back end with a name and what it offers, to which parts are added.
    pub fn new(name: impl Into<String>, capabilities: Capabilities) -> Self {
        Self { name: name.into(), capabilities, ..Self::default() }
    }

    /// With a store to look events up.
    pub fn with_store(mut self, store: Arc<dyn EventStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// With a way out for events.
    pub fn with_mirror(mut self, mirror: Box<dyn Mirror>) -> Self {
        self.mirror = Some(mirror);
        self
    }

    /// With a way in for deliveries, and one back for their verdicts.
    pub fn with_ingest(mut self, ingest: Box<dyn Ingest>, settler: Box<dyn Settler>) -> Self {
        self.ingest = Some((ingest, settler));
        self
    }

    /// With what operators ask for.
    pub fn with_operator(mut self, operator: Arc<dyn Operator>) -> Self {
        self.operator = Some(operator);
        self
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.name)
            .field("capabilities", &self.capabilities)
            .field("store", &self.store.is_some())
            .field("mirror", &self.mirror.is_some())
            .field("ingest", &self.ingest.is_some())
            .field("operator", &self.operator.is_some())
            .finish()
    }
}

/// What became of one event of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendOutcome {
    /// It is held as the provider promises.
    Held,
    /// It was held before, with the same content: nothing was stored or will be delivered again.
    Known,
    /// Its id is held with other content; nothing was stored.
    Conflict,
    /// Nobody has read so much of what is held for a subscription that nothing is added; nothing was stored.
    Full {
        /// The bound, in deliveries that wait for one subscription.
        max_backlog: u64,
    },
    /// It is refused for good, with the reason.
    Refused(String),
}

/// A store that outlives the process. Every verb may block for the back end's own time limit.
pub trait EventStore: Send + Sync {
    /// Stores an event, or does nothing if its id is known.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn put(&self, event: &Event) -> Result<(), BackendError>;
    /// The event with its status.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError>;
    /// A page of events, in the order of the filter.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn list(&self, filter: &Filter) -> Result<Page, BackendError>;
    /// Notes new statuses that come from deliveries which the back end did not hand over: those of local subscriptions. What comes of its leases it learns from [`Settler::settle`], and an event that nobody is registered
    /// for is completed when it is stored; from all of these it derives the status: failed if any delivery is dead. 1 to 256
    /// changes, each of another event; of an event that is not known, or was not sent by this provider's mirror, it is no error and
    /// changes nothing.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers; the call is repeated.
    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError>;
    /// Removes an event. False if it was not known.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn delete(&self, id: &EventId) -> Result<bool, BackendError>;
    /// Counts what is held.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn stats(&self) -> Result<StoreStats, BackendError>;
}

/// A status that an event has by the deliveries of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusChange {
    /// The event.
    pub id: EventId,
    /// Its status.
    pub status: Status,
    /// The error of the first delivery that failed.
    pub error: Option<String>,
    /// Retries of the delivery that was tried most often.
    pub retry_count: u32,
}

impl StatusChange {
    pub(crate) fn new(id: EventId, status: Status, error: Option<String>, retry_count: u32) -> Self {
        Self { id, status, error, retry_count }
    }
}

/// The way out. Called by one thread.
pub trait Mirror: Send {
    /// Hands a batch of 1 to 256 events over, in order. When it returns `Ok`, each is held or refused; the outcomes are in
    /// the order of the events. Blocks for the back end's own time limit at most. Where it waits for an answer it may call `meanwhile`
    /// first, once: that is work of the engine's which need not wait too.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] if the answer is not known for some of them: the same batch is sent again, and what the
    /// first call stored is [`Known`](SendOutcome::Known) then. [`BackendError::Refused`] refuses the whole batch.
    fn send(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError>;
}

/// Makes a call of [`Ingest::receive`] that waits return at once with nothing, or the next one if none is under way. May be
/// called from any thread; it must not block for long.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The way in. Called by one thread.
pub trait Ingest: Send {
    /// Takes deliveries, at most as many of each subscription as it has room for; waits for the first at most for `wait`. A name
    /// that is not registered has none. Called without any room too, a few times a second, so that the back end can see to what
    /// nobody else does.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers; the engine waits a little and calls again.
    fn receive(&mut self, room: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError>;
    /// Subscriptions that should give back what no call has begun of, because other members are to have it; asked after each
    /// [`receive`](Self::receive). Their leases are settled as [released](LeaseOutcome::Released) before the next one.
    fn wanted_back(&mut self) -> Vec<Arc<str>> {
        Vec::new()
    }
    /// How to interrupt a call that waits: there is room that was not there before, or the broker stops. `None` if the back end
    /// can't do that; such things then wait for `wait`.
    fn waker(&self) -> Option<Waker>;
}

/// A subscription that the back end serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// Its name: with the group, what the back end keeps deliveries for.
    pub name: Arc<str>,
    /// Its pattern.
    pub pattern: Arc<str>,
    /// If it is known with another pattern, it has this one from now on; else that is [refused](BackendError::Refused).
    pub change_pattern: bool,
    /// One member of the group, or every instance.
    pub scope: Scope,
    /// Of a broadcast subscription: it is kept under the [name of the instance](Settler::join) when that goes, with what waits
    /// for it. One that is not is gone with the provider.
    pub durable: bool,
    /// Which events it receives first. Counts only if the back end does not know the subscription yet.
    pub start: StartPosition,
}

/// The way back: which subscriptions this instance serves, and what became of its leases. Called by one thread, which is not the
/// one of the [`Ingest`]: no verdict waits for a delivery.
pub trait Settler: Send {
    /// Takes the name of this instance until the settler is dropped or its process has died: false if somebody else has it. Called
    /// before everything else, when the broker is built; may wait as long as the name of one that has died stays taken.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn join(&mut self, instance_id: &str) -> Result<bool, BackendError>;
    /// Begins to serve a subscription.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers; the call is repeated unless it was refused.
    fn register(&mut self, registration: &Registration) -> Result<(), BackendError>;
    /// Ends it on this instance; what waits at the back end stays there for other members.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers; the call is repeated unless it was refused.
    fn unregister(&mut self, name: &str) -> Result<(), BackendError>;
    /// Removes a subscription for good, with the deliveries that wait for it, whichever instances serve it. False if it was not known.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers; the call is repeated unless it was refused.
    fn remove(&mut self, name: &str) -> Result<bool, BackendError>;
    /// Ends 1 to 256 leases in one round trip. Returns those that were lost before: somebody else holds or has settled them, and
    /// nothing was changed. A back end that cannot see that returns none.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers; the same call is repeated, so what it has settled already must not count as lost.
    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>, BackendError>;
    /// Notes durably that a call of a suspect begins (`begun`), or that it has ended and the lease goes on. A lease that is lost
    /// between the two comes back with one more [crash](Lease::crashes). False if the lease is lost already.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers.
    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError>;
    /// How long a lease lasts unless it is extended; the engine does that each third of it. `None` if it lasts until it is settled, and
    /// needs no heartbeat.
    fn lease_time(&self) -> Option<Duration>;
    /// The heartbeat: extends leases to their whole time from now, and shows that this instance is alive, for its name and its
    /// subscriptions. Called at least each third of the lease time, also with no leases. Returns those that were lost meanwhile.
    ///
    /// # Errors
    /// [`BackendError`] as the back end answers; the call is repeated.
    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError>;
}
