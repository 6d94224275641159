//! One broker for the whole process, for programs that do not want to hand a handle through. It is a place for a
//! [`Broker`] and nothing more: whoever has the handle can do without this module.
//!
//! The place is in one of three states:
//!
//! | State | after | publishing | subscribing |
//! |---|---|---|---|
//! | empty | the start of the process, [`shutdown`] | [`PublishError::NotRunning`] | [`SubscribeError::NotInitialised`] |
//! | disabled | [`disable`] | [`PublishError::Disabled`] | [`SubscribeError::Disabled`] |
//! | taken | [`init`], [`set`] | as the broker does | as the broker does |
//!
//! Without a broker an event comes back with an error: nothing is called accepted that nobody holds. That costs one
//! load and one allocation, touches no lock, and a program that wants to go on without events matches on
//! `PublishError::Disabled`.
//!
//! ```
//! use eventbroker::{Broker, Event, Source, global};
//! use std::time::Duration;
//!
//! global::init(Broker::builder().worker_count(2))?;
//! global::subscribe("shop.orders.*", |delivery| println!("{}", delivery.event().event_type()))?;
//! global::publish(Event::builder(Source::System, "shop.orders.create").build()?)?;
//! let report = global::shutdown(Duration::from_secs(5)).expect("there was a broker");
//! assert!(report.is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

use super::{Broker, BrokerBuilder};
use crate::bridge::Receipt;
use crate::config::SubscribeOptions;
use crate::event::Event;
use crate::outcome::{
    Accepted, PublishError, StartError, Stats, StopReport, SubscribeError, SubscriptionId, SyncReport,
    UnknownSubscription,
};
use crate::subscription::{Delivery, IntoOutcome};

/// What is at the place.
#[derive(Debug)]
enum State {
    Empty,
    Disabled,
    Taken(Broker),
}

static PLACE: LazyLock<ArcSwap<State>> = LazyLock::new(|| ArcSwap::from_pointee(State::Empty));
/// Held while the place is being taken or left, so that of two that initialise at once the second sees the first.
static TAKING: Mutex<()> = Mutex::new(());
/// Held by the scope of a test.
static SCOPES: Mutex<()> = Mutex::new(());

/// Why the place was not taken. What was there stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// There is a broker already, or it was disabled.
    #[error("the global broker is initialised already")]
    AlreadyInitialised,
    /// The broker could not be built or started.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Builds and starts a broker and puts it at the place. Does not block.
///
/// # Errors
/// [`InitError::AlreadyInitialised`]: nothing was built, and the first one stays. [`InitError::Start`] as
/// [`BrokerBuilder::start`].
pub fn init(builder: BrokerBuilder) -> Result<(), InitError> {
    init_with(|| Ok(builder.start()?))
}

/// Puts the broker at the place that `make` returns, which is called only if the place is empty. It must not call this module.
///
/// # Errors
/// [`InitError::AlreadyInitialised`], or what `make` returns; the place stays as it was.
pub fn init_with<E: From<InitError>>(make: impl FnOnce() -> Result<Broker, E>) -> Result<(), E> {
    let _taking = TAKING.lock();
    if !matches!(**PLACE.load(), State::Empty) {
        return Err(InitError::AlreadyInitialised.into());
    }
    PLACE.store(Arc::new(State::Taken(make()?)));
    Ok(())
}

/// Puts a broker at the place, which then holds a handle of it.
///
/// # Errors
/// [`InitError::AlreadyInitialised`]; the first one stays.
pub fn set(broker: Broker) -> Result<(), InitError> {
    init_with(|| Ok(broker))
}

/// Says that there is to be no broker, until [`shutdown`].
///
/// # Errors
/// [`InitError::AlreadyInitialised`] if there is one; it stays.
pub fn disable() -> Result<(), InitError> {
    let _taking = TAKING.lock();
    if matches!(**PLACE.load(), State::Taken(_)) {
        return Err(InitError::AlreadyInitialised);
    }
    PLACE.store(Arc::new(State::Disabled));
    Ok(())
}

/// A handle of the broker, if there is one.
pub fn get() -> Option<Broker> {
    match &**PLACE.load() {
        State::Taken(broker) => Some(broker.clone()),
        State::Empty | State::Disabled => None,
    }
}

/// Publishes an event as [`Broker::publish`] does.
///
/// # Errors
/// [`PublishError`] with the event; without a broker as the table above says.
pub fn publish(event: Event) -> Result<Accepted, PublishError> {
    publisher(event, Broker::publish)
}

/// Publishes an event as [`Broker::publish_sync`] does.
///
/// # Errors
/// [`PublishError`] with the event; without a broker as the table above says.
pub fn publish_sync(event: Event) -> Result<SyncReport, PublishError> {
    publisher(event, Broker::publish_sync)
}

/// Publishes an event as [`Broker::publish_async`] does.
///
/// # Errors
/// [`PublishError`] with the event; without a broker as the table above says.
pub fn publish_async(event: Event) -> Result<Receipt, PublishError> {
    publisher(event, Broker::publish_async)
}

fn publisher<T>(event: Event, verb: fn(&Broker, Event) -> Result<T, PublishError>) -> Result<T, PublishError> {
    match &**PLACE.load() {
        State::Taken(broker) => verb(broker, event),
        State::Empty => Err(PublishError::NotRunning { event: Box::new(event) }),
        State::Disabled => Err(PublishError::Disabled { event: Box::new(event) }),
    }
}

/// Subscribes a handler as [`Broker::subscribe`] does.
///
/// # Errors
/// [`SubscribeError`]; without a broker as the table above says.
pub fn subscribe<F, R>(pattern: impl AsRef<str>, handler: F) -> Result<SubscriptionId, SubscribeError>
where
    F: Fn(&Delivery<'_>) -> R + Send + Sync + 'static,
    R: IntoOutcome,
{
    subscribe_with(SubscribeOptions::new(pattern), handler)
}

/// Subscribes a handler with options as [`Broker::subscribe_with`] does.
///
/// # Errors
/// [`SubscribeError`]; without a broker as the table above says.
pub fn subscribe_with<F, R>(options: SubscribeOptions, handler: F) -> Result<SubscriptionId, SubscribeError>
where
    F: Fn(&Delivery<'_>) -> R + Send + Sync + 'static,
    R: IntoOutcome,
{
    match &**PLACE.load() {
        State::Taken(broker) => broker.subscribe_with(options, handler),
        State::Empty => Err(SubscribeError::NotInitialised),
        State::Disabled => Err(SubscribeError::Disabled),
    }
}

/// Ends a subscription as [`Broker::unsubscribe`] does, and blocks as that does.
///
/// # Errors
/// [`UnknownSubscription`] if there is no such subscription, or no broker.
pub fn unsubscribe(id: SubscriptionId) -> Result<u64, UnknownSubscription> {
    get().ok_or(UnknownSubscription { id })?.unsubscribe(id)
}

/// The totals of the broker, if there is one.
pub fn stats() -> Option<Stats> {
    get().map(|broker| broker.stats())
}

/// Empties the place and stops the broker that was there, as [`Broker::stop`] does, and blocks as that does. From the first
/// moment on nobody finds it here any more, and another one can be put there. Other handles of it find it stopped.
/// Returns nothing if there was none.
pub fn shutdown(deadline: Duration) -> Option<StopReport> {
    let left = {
        let _taking = TAKING.lock();
        PLACE.swap(Arc::new(State::Empty))
    };
    match &*left {
        State::Taken(broker) => Some(broker.stop(deadline)),
        State::Empty | State::Disabled => None,
    }
}

/// For tests: puts a broker at the place, whatever is there, until the scope is dropped. Then that broker is stopped, draining
/// for at most 5 seconds, and what was there before is back. Scopes of several tests wait for each other, for as long as
/// those take; a second one on the same thread waits for ever.
///
/// ```
/// use eventbroker::{Broker, global};
///
/// let scope = global::scope(Broker::builder().start()?);
/// assert!(global::get().is_some());
/// drop(scope);
/// assert!(global::get().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn scope(broker: Broker) -> Scope {
    let alone = SCOPES.lock();
    let _taking = TAKING.lock();
    let before = PLACE.swap(Arc::new(State::Taken(broker.clone())));
    Scope { broker, before, _alone: alone }
}

/// Keeps a broker at the place. Made by [`scope`].
#[derive(Debug)]
#[must_use = "dropping it ends it"]
pub struct Scope {
    broker: Broker,
    before: Arc<State>,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        // What it replaces may be the last handle of another broker, whose end runs user code: without the lock.
        let replaced = {
            let _taking = TAKING.lock();
            PLACE.swap(Arc::clone(&self.before))
        };
        drop(replaced);
        self.broker.stop(crate::broker::DRAIN_ON_DROP);
    }
}
