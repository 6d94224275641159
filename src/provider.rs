//! The traits that a back end implements.
//!
//! A bridge package implements these traits and assembles a [`Provider`], which is passed to
//! [`BrokerBuilder::provider`](crate::BrokerBuilder::provider). The bridge owns its connections and its storage format.
//! It knows nothing of workers, handlers or retry policies. Absent parts are `None`, and missing features are absent
//! from the [`Capabilities`], so asking for one is an error when the caller subscribes, not later.
//!
//! # Threads
//!
//! | part | direction | called by |
//! |---|---|---|
//! | [`Mirror`] | events out | the thread `eventbroker:mirror` |
//! | [`Ingest`] | leased deliveries in | the thread `eventbroker:ingest`; the builder's for `waker` |
//! | [`Settler`] | outcomes, registrations, heartbeat | the thread `eventbroker:settle`; the builder's for `join`, the starter's for `lease_time` |
//! | [`EventStore`] | look-ups, statuses | any thread, several at once |
//! | [`Operator`] | dead letters, replay, lag | any thread, several at once |
//!
//! One thread calls each of the first three parts, so they need no locks and may block. They are separate because a
//! connection that waits for deliveries cannot write, and an outcome must not wait for a publish. The engine sets no
//! deadline on a call: every call must return within a time limit of the bridge's own, with an error if the server is
//! silent.
//!
//! # Errors and retries
//!
//! After [`BackendError::Unavailable`] a bridge thread pauses (20 ms, doubling to 1 s, with jitter) and repeats the
//! call until the broker stops, and once more then. A panic counts as `Unavailable`. Other errors are final unless the
//! method says otherwise. Failed calls are logged and counted in [`BridgeStats`](crate::stats::BridgeStats). Errors on any other
//! thread go to the caller. A bridge reconnects inside the calls; [`Backoff`] spaces its attempts.
//!
//! # Writing a back end
//!
//! Begin with [`Mirror`], which has one method, and add the parts that the back end can offer:
//!
//! | users get | part | without it |
//! |---|---|---|
//! | events that the back end holds when `publish` returns | [`Mirror`] | events are published in this process only |
//! | deliveries from the back end, and their redelivery | [`Ingest`] and [`Settler`], with the capability `groups` or `broadcast` | subscriptions receive the events of this process only |
//! | [`get`](crate::Broker::get) and [`list`](crate::Broker::list) from the back end, and stored statuses | [`EventStore`] | both read the store of this process |
//! | dead letters of all instances, and lag | [`Operator`] | this process keeps the dead letters of its own deliveries |
//! | replay; streams of all instances | [`Operator`], with the capability `replay`; `tail` | replay is refused, and a stream has the events of this process |
//!
//! The package `eventbroker-conformance` (`tests/conformance`) tests a back end. Its trait `Subject` opens the back
//! end and lists its abilities, and its macro `conformance_tests!` generates a test for each promise. A test that
//! needs a missing ability is skipped. The module `loopback` of that package is a back end with every part, in memory.
//!
//! # Example
//!
//! A back end that stores events and delivers none:
//!
//! ```
//! use eventbroker::provider::{BackendError, Capabilities, Mirror, Provider, SendOutcome};
//! use eventbroker::{Broker, Event, Source};
//! use std::sync::{Arc, Mutex};
//!
//! #[derive(Default, Clone)]
//! struct Journal(Arc<Mutex<Vec<Event>>>);
//!
//! impl Mirror for Journal {
//!     fn send(&mut self, batch: &[Event], _: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError> {
//!         self.0.lock().unwrap().extend_from_slice(batch);
//!         Ok(vec![SendOutcome::Held; batch.len()])
//!     }
//! }
//!
//! let journal = Journal::default();
//! let provider = Provider::new("journal", Capabilities::none()).with_mirror(Box::new(journal.clone()));
//! let broker = Broker::builder().provider(provider).start()?;
//! broker.publish(Event::builder(Source::System, "shop.orders.create").build()?)?;
//! assert_eq!(journal.0.lock().unwrap().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

/// The name of the provider without a back end.
pub(crate) const MEMORY: &str = "memory";

/// A back end for one broker: its name, its parts and its features.
#[derive(Default)]
#[non_exhaustive]
pub struct Provider {
    /// The name of the back end in errors, logs and statistics.
    pub name: String,
    /// Looks events up, also those that this process no longer holds.
    pub store: Option<Arc<dyn EventStore>>,
    /// Sends accepted events to the back end.
    pub mirror: Option<Box<dyn Mirror>>,
    /// Receives leased deliveries, and settles them.
    pub ingest: Option<(Box<dyn Ingest>, Box<dyn Settler>)>,
    /// Serves operators.
    /// Without it, this process keeps the dead letters of its own deliveries.
    pub operator: Option<Arc<dyn Operator>>,
    /// The features that the back end offers.
    pub capabilities: Capabilities,
}

impl Provider {
    /// The provider without a back end: events live in this process only.
    /// The default of a broker.
    pub fn memory() -> Self {
        Self { name: MEMORY.to_owned(), ..Self::default() }
    }

    /// Creates a back end without parts. Add them with the `with_` methods.
    pub fn new(name: impl Into<String>, capabilities: Capabilities) -> Self {
        Self { name: name.into(), capabilities, ..Self::default() }
    }

    /// Adds the store that looks events up.
    pub fn with_store(mut self, store: Arc<dyn EventStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Adds the part that sends events.
    pub fn with_mirror(mut self, mirror: Box<dyn Mirror>) -> Self {
        self.mirror = Some(mirror);
        self
    }

    /// Adds the parts that receive deliveries and settle them.
    pub fn with_ingest(mut self, ingest: Box<dyn Ingest>, settler: Box<dyn Settler>) -> Self {
        self.ingest = Some((ingest, settler));
        self
    }

    /// Adds the part that serves operators.
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

/// The outcome of sending one event of a batch.
///
/// The last three end the publish with an error. With [`Confirm::Buffered`](crate::Confirm::Buffered), where the
/// publish has already returned, they make the event a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendOutcome {
    /// The event is stored as durably as the provider guarantees.
    Held,
    /// The same event was stored before.
    /// Nothing was stored, and nothing will be delivered again.
    Known,
    /// An event with this id and other content is stored. Nothing was stored.
    Conflict,
    /// A subscription's backlog has reached its bound. Nothing was stored.
    Full {
        /// The bound, in deliveries that wait for one subscription.
        max_backlog: u64,
    },
    /// The back end refuses the event permanently, for this reason.
    Refused(String),
}

/// A store of events that outlives the process.
///
/// Any thread may call it, several at once. Each call may block for the back end's own time limit. The engine calls
/// [`get`](Self::get) and [`list`](Self::list) on the thread that asks the broker, and retries neither; its mirror
/// thread calls [`update_statuses`](Self::update_statuses). The other methods are for tools.
pub trait EventStore: Send + Sync {
    /// Stores an event, or does nothing if its id is stored already.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn put(&self, event: &Event) -> Result<(), BackendError>;
    /// Returns the event with its status, or `None` if it is not stored.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError>;
    /// Returns a page of events, in the order that the filter asks for.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn list(&self, filter: &Filter) -> Result<Page, BackendError>;
    /// Records the statuses that deliveries to local subscriptions gave to events.
    ///
    /// Receives 1 to 256 changes, each of another event. The back end learns the outcomes of its leases from
    /// [`Settler::settle`], and completes an event without registered subscriptions when it stores it. It derives the
    /// status from all of these: failed if any delivery is dead. A change has no effect if its event is not stored, or
    /// was not sent by this provider's mirror; that is no error.
    ///
    /// # Errors
    /// Any [`BackendError`]. After [`Unavailable`](BackendError::Unavailable) the engine keeps the latest status of
    /// each event and calls again. It drops changes that are refused.
    fn update_statuses(&self, changes: &[StatusChange]) -> Result<(), BackendError>;
    /// Removes an event. Returns false if it was not stored.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn delete(&self, id: &EventId) -> Result<bool, BackendError>;
    /// Counts the stored events by status.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn stats(&self) -> Result<StoreStats, BackendError>;
}

/// The status of an event as far as the deliveries of this process determine it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusChange {
    /// The event.
    pub id: EventId,
    /// Its status.
    pub status: Status,
    /// The error of the first delivery that failed.
    pub error: Option<String>,
    /// Retries of the delivery with the most attempts.
    pub retry_count: u32,
}

impl StatusChange {
    pub(crate) fn new(id: EventId, status: Status, error: Option<String>, retry_count: u32) -> Self {
        Self { id, status, error, retry_count }
    }
}

/// Sends accepted events to the back end. One thread calls it.
pub trait Mirror: Send {
    /// Sends a batch of 1 to 256 events, and returns their outcomes in the same order.
    ///
    /// Blocks for at most the back end's own time limit. Returns `Ok` only when each event is stored or refused; one
    /// without an outcome is reported as [unknown](crate::PublishError::Unknown). Before it waits for the answer it may
    /// call `meanwhile` once, in which the engine follows up the last batch and prepares the next.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] if the fate of any event is unknown. The engine sends the same batch again, so an
    /// event that the first call stored must be [`Known`](SendOutcome::Known) then. Every other error refuses the
    /// batch.
    fn send(&mut self, batch: &[Event], meanwhile: &mut dyn FnMut()) -> Result<Vec<SendOutcome>, BackendError>;
}

/// Interrupts [`Ingest::receive`].
///
/// The current call, or the next one if none is running, returns at once without deliveries.
/// Any thread may call it, worker threads included, so it must not block for long.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Receives leased deliveries from the back end.
///
/// One thread calls it: [`receive`](Self::receive) from the start of the broker until it drains, and
/// [`wanted_back`](Self::wanted_back) until the broker has drained.
pub trait Ingest: Send {
    /// Returns ready deliveries, at most as many per subscription as `demand` lists.
    ///
    /// Waits up to `wait` for the first one: 1 s, or 100 ms without a [`waker`](Self::waker). Returns none for a name
    /// that is not registered. With an empty `demand`, `wait` is zero, and the engine calls about ten times a second so
    /// that the bridge can do its housekeeping.
    ///
    /// # Errors
    /// Any [`BackendError`]. The engine pauses and calls again. Leases granted in a failed call must be returned by a
    /// later one, or expire.
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError>;
    /// Names the subscriptions whose queued deliveries must go to other members.
    ///
    /// Called after each [`receive`](Self::receive), and while the broker drains. The engine settles their leases as
    /// [released](LeaseOutcome::Released) unless a call has begun or a retry waits. The next `receive` follows when
    /// that is done, at the latest after 5 s for each name.
    fn wanted_back(&mut self) -> Vec<Arc<str>> {
        Vec::new()
    }
    /// Returns the function that interrupts a waiting [`receive`](Self::receive).
    ///
    /// The engine calls that function when there is new demand, or the broker stops. `None` if the back end offers
    /// none: both then wait until `receive` returns.
    fn waker(&self) -> Option<Waker>;
}

/// A subscription that this instance serves through the back end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// The name under which, within the group, the back end keeps the deliveries.
    pub name: Arc<str>,
    /// The pattern.
    pub pattern: Arc<str>,
    /// Replaces the pattern of a known subscription.
    ///
    /// If false, a known subscription with another pattern is [refused](BackendError::Refused).
    pub change_pattern: bool,
    /// [`Scope::Group`] or [`Scope::Broadcast`].
    pub scope: Scope,
    /// Keeps a broadcast subscription and its backlog when the instance ends.
    ///
    /// They stay under the [name of the instance](Settler::join). One that is not durable ends with the provider.
    pub durable: bool,
    /// The start position, for a subscription that the back end does not know.
    pub start: StartPosition,
}

/// Registers subscriptions, settles leases and extends them.
///
/// One thread calls it, other than that of the [`Ingest`], so no outcome waits for a delivery. Each call may block for
/// the back end's own time limit; a slow call delays the heartbeat, [`extend`](Self::extend).
pub trait Settler: Send {
    /// Claims the name of this instance.
    /// Returns false if another live process holds it.
    ///
    /// This is the first call, made while the broker is built. The name stays claimed until the settler is dropped or
    /// the process ends. The call may block until the claim of a dead process expires.
    ///
    /// # Errors
    /// Any [`BackendError`]. The broker starts anyway, and the settling thread tries again about once a second.
    fn join(&mut self, instance_id: &str) -> Result<bool, BackendError>;
    /// Starts to serve a subscription. The caller waits up to 5 s.
    ///
    /// # Errors
    /// Any [`BackendError`]. Repeated after [`Unavailable`](BackendError::Unavailable).
    fn register(&mut self, registration: &Registration) -> Result<(), BackendError>;
    /// Stops serving a subscription on this instance.
    /// Its backlog stays for other members.
    ///
    /// # Errors
    /// Any [`BackendError`]. Repeated after [`Unavailable`](BackendError::Unavailable).
    fn unregister(&mut self, name: &str) -> Result<(), BackendError>;
    /// Removes a subscription and its backlog permanently, for all instances.
    ///
    /// Returns false if it was not known. The caller waits up to 5 s.
    ///
    /// # Errors
    /// Any [`BackendError`]. Repeated after [`Unavailable`](BackendError::Unavailable).
    fn remove(&mut self, name: &str) -> Result<bool, BackendError>;
    /// Settles 1 to 256 leases in one round trip, and returns those already lost.
    ///
    /// A lease is lost if another member holds or has settled its delivery; settling it changes nothing. A back end
    /// that cannot detect that returns none.
    ///
    /// # Errors
    /// Any [`BackendError`]. After [`Unavailable`](BackendError::Unavailable) the engine sends the same settlements
    /// again, possibly followed by more, so those that were settled must not count as lost. Every other error drops
    /// them.
    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>, BackendError>;
    /// Durably marks a suspect before its call, or removes the mark after it.
    ///
    /// `begun` is true before the call, and false after it if the lease goes on. A delivery whose lease is lost while
    /// marked comes back with one more [crash](Lease::crashes). Returns false if the lease is lost already. The worker
    /// waits up to 5 s for the mark; without it the call does not begin.
    ///
    /// # Errors
    /// Any [`BackendError`]. Repeated after [`Unavailable`](BackendError::Unavailable).
    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError>;
    /// Returns how long a lease lasts unless it is extended. Must not change.
    ///
    /// `None` if leases last until they are settled: then the engine never calls [`extend`](Self::extend).
    fn lease_time(&self) -> Option<Duration>;
    /// Extends leases to their full time from now, and returns those that were lost.
    ///
    /// It is also the heartbeat of this instance, for its name and its subscriptions. Called about every third of the
    /// lease time, also without leases.
    ///
    /// # Errors
    /// Any [`BackendError`]. Repeated after every error.
    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError>;
}
