//! One broker for the whole process.
//!
//! For programs that do not want to pass a handle through their code. A slot holds the [`Broker`]. It has three states:
//!
//! | State | after | publishing | subscribing |
//! |---|---|---|---|
//! | empty | the start of the process, [`shutdown`] | [`PublishError::NotRunning`] | [`SubscribeError::NotInitialised`] |
//! | disabled | [`disable`] | [`PublishError::Disabled`] | [`SubscribeError::Disabled`] |
//! | initialised | [`init`], [`set`] | as the broker does | as the broker does |
//!
//! Without a broker, a publish returns its event in an error. That costs one load and one allocation, and takes no
//! lock. A program that continues without events matches on `PublishError::Disabled`.
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

/// The state of the slot.
#[derive(Debug)]
enum Slot {
    Empty,
    Disabled,
    Initialised(Broker),
}

static SLOT: LazyLock<ArcSwap<Slot>> = LazyLock::new(|| ArcSwap::from_pointee(Slot::Empty));
/// Held while the slot changes, so that of two concurrent initialisations the second fails.
static CHANGING: Mutex<()> = Mutex::new(());
/// Held by the scope of a test.
static SCOPES: Mutex<()> = Mutex::new(());

/// Why the global broker was not initialised. The slot is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The slot has a broker, or is disabled.
    #[error("the global broker is already initialised or disabled")]
    AlreadyInitialised,
    /// The broker could not be built or started.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Builds and starts the global broker.
///
/// Blocks as [`BrokerBuilder::start`] does: only with a back end.
///
/// # Errors
/// [`InitError::AlreadyInitialised`]: nothing was built. [`InitError::Start`] as [`BrokerBuilder::start`].
pub fn init(builder: BrokerBuilder) -> Result<(), InitError> {
    init_with(|| Ok(builder.start()?))
}

/// Makes the broker that `make` returns the global broker.
///
/// `make` is called only if the slot is empty, and must not change the slot (deadlock). Blocks as `make` does.
///
/// # Errors
/// [`InitError::AlreadyInitialised`], or the error of `make`; the slot is unchanged.
pub fn init_with<E: From<InitError>>(make: impl FnOnce() -> Result<Broker, E>) -> Result<(), E> {
    let _changing = CHANGING.lock();
    if !matches!(**SLOT.load(), Slot::Empty) {
        return Err(InitError::AlreadyInitialised.into());
    }
    SLOT.store(Arc::new(Slot::Initialised(make()?)));
    Ok(())
}

/// Makes a broker the global broker. The slot holds the handle.
///
/// # Errors
/// [`InitError::AlreadyInitialised`]; the slot is unchanged.
pub fn set(broker: Broker) -> Result<(), InitError> {
    init_with(|| Ok(broker))
}

/// Disables the global broker until [`shutdown`].
///
/// # Errors
/// [`InitError::AlreadyInitialised`] if the slot has a broker, which stays.
pub fn disable() -> Result<(), InitError> {
    let _changing = CHANGING.lock();
    if matches!(**SLOT.load(), Slot::Initialised(_)) {
        return Err(InitError::AlreadyInitialised);
    }
    SLOT.store(Arc::new(Slot::Disabled));
    Ok(())
}

/// A handle of the global broker, if it is initialised. Never blocks.
pub fn get() -> Option<Broker> {
    match &**SLOT.load() {
        Slot::Initialised(broker) => Some(broker.clone()),
        Slot::Empty | Slot::Disabled => None,
    }
}

/// Publishes an event as [`Broker::publish`] does, and blocks as that does.
///
/// # Errors
/// [`PublishError`] with the event; without a broker, as in the [module's table](self).
pub fn publish(event: Event) -> Result<Accepted, PublishError> {
    publish_with(event, Broker::publish)
}

/// Publishes an event as [`Broker::publish_sync`] does, and blocks as that does.
///
/// # Errors
/// [`PublishError`] with the event; without a broker, as in the [module's table](self).
pub fn publish_sync(event: Event) -> Result<SyncReport, PublishError> {
    publish_with(event, Broker::publish_sync)
}

/// Publishes an event as [`Broker::publish_async`] does. Does not block.
///
/// # Errors
/// [`PublishError`] with the event; without a broker, as in the [module's table](self).
pub fn publish_async(event: Event) -> Result<Receipt, PublishError> {
    publish_with(event, Broker::publish_async)
}

fn publish_with<T>(event: Event, verb: fn(&Broker, Event) -> Result<T, PublishError>) -> Result<T, PublishError> {
    match &**SLOT.load() {
        Slot::Initialised(broker) => verb(broker, event),
        Slot::Empty => Err(PublishError::NotRunning { event: Box::new(event) }),
        Slot::Disabled => Err(PublishError::Disabled { event: Box::new(event) }),
    }
}

/// Subscribes a handler as [`Broker::subscribe`] does, and blocks as that does.
///
/// # Errors
/// [`SubscribeError`]; without a broker, as in the [module's table](self).
pub fn subscribe<F, R>(pattern: impl AsRef<str>, handler: F) -> Result<SubscriptionId, SubscribeError>
where
    F: Fn(&Delivery<'_>) -> R + Send + Sync + 'static,
    R: IntoOutcome,
{
    subscribe_with(SubscribeOptions::new(pattern), handler)
}

/// Subscribes a handler as [`Broker::subscribe_with`] does, and blocks as that does.
///
/// # Errors
/// [`SubscribeError`]; without a broker, as in the [module's table](self).
pub fn subscribe_with<F, R>(options: SubscribeOptions, handler: F) -> Result<SubscriptionId, SubscribeError>
where
    F: Fn(&Delivery<'_>) -> R + Send + Sync + 'static,
    R: IntoOutcome,
{
    match &**SLOT.load() {
        Slot::Initialised(broker) => broker.subscribe_with(options, handler),
        Slot::Empty => Err(SubscribeError::NotInitialised),
        Slot::Disabled => Err(SubscribeError::Disabled),
    }
}

/// Ends a subscription as [`Broker::unsubscribe`] does, and blocks as that does.
///
/// # Errors
/// [`UnknownSubscription`] if the broker has no such subscription, or no broker is set.
pub fn unsubscribe(id: SubscriptionId) -> Result<u64, UnknownSubscription> {
    get().ok_or(UnknownSubscription { id })?.unsubscribe(id)
}

/// The statistics of the global broker, if it is initialised. Does not block.
pub fn stats() -> Option<Stats> {
    get().map(|broker| broker.stats())
}

/// Stops the global broker as [`Broker::stop`] does, and blocks as that does.
///
/// The slot is emptied first, so that it can be initialised again. Returns `None` if it had no broker.
pub fn shutdown(deadline: Duration) -> Option<StopReport> {
    let previous = {
        let _changing = CHANGING.lock();
        SLOT.swap(Arc::new(Slot::Empty))
    };
    match &*previous {
        Slot::Initialised(broker) => Some(broker.stop(deadline)),
        Slot::Empty | Slot::Disabled => None,
    }
}

/// Makes a broker the global broker for the scope of a test.
///
/// It replaces the state of the slot until the scope is dropped. Then the earlier state is restored, and the broker is
/// stopped with a deadline of 5 s. Blocks until no other scope exists; a second one on the same thread deadlocks.
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
pub fn scope(broker: Broker) -> ScopeGuard {
    let lock = SCOPES.lock();
    let _changing = CHANGING.lock();
    let before = SLOT.swap(Arc::new(Slot::Initialised(broker.clone())));
    ScopeGuard { broker, before, _lock: lock }
}

/// Keeps a broker in the slot until it is dropped. Created by [`scope`].
#[derive(Debug)]
#[must_use = "dropping the scope ends it"]
pub struct ScopeGuard {
    broker: Broker,
    before: Arc<Slot>,
    _lock: MutexGuard<'static, ()>,
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        // Dropped without the lock: it may be the last handle of another broker, whose stop runs user code.
        let replaced = {
            let _changing = CHANGING.lock();
            SLOT.swap(Arc::clone(&self.before))
        };
        drop(replaced);
        self.broker.stop(crate::broker::DRAIN_ON_DROP);
    }
}
