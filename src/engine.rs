//! The running parts of one broker in one place, shared by all its threads. The verbs are in the files named after them:
//! `dispatch`, `worker`, `settle`, `timer`, `lifecycle`, `bridge`.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::bridge::{Bridge, ORDER_ACROSS_INSTANCES, START_POSITIONS, Suspects};
use crate::clock::Clock;
use crate::config::{Config, Mode, Scope, StartPosition, SubscribeOptions};
use crate::dead_letter::{DeadLetter, DeadLetters};
use crate::delay::Delays;
use crate::error::{StartError, SubscribeError};
use crate::event::Event;
use crate::lifecycle::{Lifecycle, Phase, Role};
use crate::pool::{Pool, Worker};
use crate::provider::{MEMORY, Provider};
use crate::router::Router;
use crate::series::Series;
use crate::stats::Counts;
use crate::store::{By, SharedRecord, Store};
use crate::stream::StreamSink;
use crate::subscription::{Handler, Identity, Subscription, Workers};
use crate::timer::Timer;
use crate::trace::SharedPropagator;
use crate::verdict::{Settled, SubscriptionId};
use crate::worker;

/// Called with each verdict.
pub(crate) type Observer = Arc<dyn Fn(&Settled<'_>) + Send + Sync>;

/// See the module's page. Lock order: `subscriptions`, then the router's writer, then anything of the store, an inbox or
/// the delays, none of which calls back. No lock is held while user code runs.
pub(crate) struct Engine {
    /// Tells the brokers of a process apart.
    pub(crate) number: u64,
    pub(crate) config: Config,
    pub(crate) instance_id: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) router: Router<Arc<Subscription>>,
    pub(crate) streams: Router<Arc<StreamSink>>,
    pub(crate) subscriptions: Mutex<Registry>,
    pub(crate) pool: Arc<Workers>,
    pub(crate) delays: Delays,
    pub(crate) timer: Timer,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) counts: Counts,
    pub(crate) series: Series,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) bridge: Option<Bridge>,
    pub(crate) suspects: Suspects,
    pub(crate) observers: ArcSwap<Vec<Observer>>,
    pub(crate) has_observers: AtomicBool,
    pub(crate) propagator: Option<SharedPropagator>,
    /// Stop has reached its deadline: calls that still run are not waited for.
    pub(crate) calls_cancelled: AtomicBool,
    pub(crate) stream_gaps: AtomicU64,
    /// A value that the number of settled events had; looked up again only when too many seem in flight.
    pub(crate) settled_seen: AtomicU64,
    /// The front's handle, which keeps the broker alive.
    pub(crate) front: OnceLock<Weak<dyn Any + Send + Sync>>,
    /// Numbers subscriptions and streams.
    next_id: AtomicU64,
    jitter: AtomicU64,
}

/// The subscriptions that exist.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) by_id: BTreeMap<u64, Arc<Subscription>>,
    by_name: HashMap<Arc<str>, u64>,
    /// Those with threads of their own.
    dedicated: Vec<Arc<Subscription>>,
    closed: bool,
}

impl Registry {
    /// The subscription that a dead letter belongs to: the one that failed, or its successor of the same name.
    pub(crate) fn find_for(&self, failed: SubscriptionId, name: &str) -> Option<Arc<Subscription>> {
        self.by_id.get(&failed.0).cloned().or_else(|| self.find_by_name(name))
    }

    pub(crate) fn find_by_name(&self, name: &str) -> Option<Arc<Subscription>> {
        self.by_id.get(self.by_name.get(name)?).cloned()
    }

    /// Those with threads of their own.
    pub(crate) fn dedicated(&self) -> Vec<Arc<Subscription>> {
        self.dedicated.clone()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Subscription>> {
        self.by_id.values().cloned().collect()
    }

    /// From now on nothing is added.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}

impl Engine {
    /// Builds the parts. Nothing runs yet.
    pub(crate) fn new(
        config: Config,
        clock: Clock,
        provider: Provider,
        propagator: Option<SharedPropagator>,
    ) -> Result<Arc<Self>, StartError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        config.check()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut instance_id = config.instance_id.clone().unwrap_or_else(default_instance_id);
        let bridge = Bridge::new(provider, config.confirm);
        if let Some(bridge) = &bridge {
            instance_id = bridge.join(instance_id, config.instance_id.is_some())?;
        }
        let has_operator = bridge.as_ref().is_some_and(|bridge| bridge.operator.is_some());
        let first_dead_letter = if has_operator { DeadLetter::FIRST_LOCAL } else { 1 };
        // Of what the pool can grow by, a part is kept for subscriptions whose handlers are not long.
        let kept = (config.worker_count / 2).max(1);
        let for_long = config.effective_max_workers().saturating_sub(kept).max(config.worker_count);
        Ok(Arc::new(Self {
            number,
            instance_id: instance_id.into(),
            store: Store::new(config.max_events, config.max_in_flight),
            router: Router::new(),
            streams: Router::new(),
            subscriptions: Mutex::default(),
            pool: Arc::new(Pool::new(for_long)),
            delays: Delays::default(),
            timer: Timer::new(),
            dead_letters: DeadLetters::new(config.max_dead_letters, first_dead_letter),
            counts: Counts::default(),
            series: Series::default(),
            lifecycle: Arc::new(Lifecycle::new()),
            bridge,
            suspects: Suspects::default(),
            observers: ArcSwap::default(),
            has_observers: AtomicBool::new(false),
            propagator,
            calls_cancelled: AtomicBool::new(false),
            stream_gaps: AtomicU64::new(0),
            settled_seen: AtomicU64::new(0),
            front: OnceLock::new(),
            next_id: AtomicU64::new(1),
            jitter: AtomicU64::new(clock.wall(number)),
            clock,
            config,
        }))
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Events that are accepted and not settled, given a sum of `counts.settled` that was read before: never too few.
    pub(crate) fn in_flight(&self, settled: u64) -> u64 {
        (self.counts.sum(|shard| &shard.accepted) + self.counts.reopened()).saturating_sub(settled)
    }

    /// Puts an event into the store: from here on it is accepted. Or hands it back with the record that has its id.
    pub(crate) fn store_new(
        &self,
        event: Event,
        deliveries: u32,
        by: By<'_>,
    ) -> Result<SharedRecord, (Event, SharedRecord)> {
        let record = self.store.put(event, deliveries, by, || self.in_flight(self.counts.settled()))?;
        let here = self.counts.here();
        here.accepted.add_one();
        if self.config.metrics {
            self.series.published(here.series(), &record.event);
            // With a back end its deliveries may come in later, here or elsewhere.
            if deliveries == 0 && self.bridge.is_none() {
                self.series.settled(here.series(), &record.event, false, None, 0);
            }
        }
        Ok(record)
    }

    /// Has the store let go of what is beyond its bound.
    pub(crate) fn fit_store(&self) {
        self.store.fit(|| self.in_flight(self.counts.settled()));
    }

    /// A uniform number in 0..1 (splitmix64 over a counter): spreads retries, decides nothing.
    pub(crate) fn random(&self) -> f64 {
        let mut x = self.jitter.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Adds a subscription. It receives every event that is published after this returns.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        options: &SubscribeOptions,
        handler: Handler,
    ) -> Result<Arc<Subscription>, SubscribeError> {
        let pattern = options.check()?.clone();
        let scope = options.scope.unwrap_or(match self.config.mode {
            Mode::Async => Scope::Group,
            Mode::Sync => Scope::Local,
        });
        let served = self.bridge.as_ref().is_some_and(|bridge| bridge.serves(scope));
        match &self.bridge {
            Some(bridge) => bridge.check(scope, options)?,
            None => {
                let unsupported = |feature| Err(SubscribeError::Unsupported { provider: MEMORY.to_owned(), feature });
                if options.start != StartPosition::New {
                    return unsupported(START_POSITIONS);
                }
                if options.ordered_across_instances {
                    return unsupported(ORDER_ACROSS_INSTANCES);
                }
            }
        }
        let id = SubscriptionId(self.next_id());
        let pool = if options.dedicated {
            Arc::new(Pool::new(options.concurrency.unwrap_or(1)))
        } else {
            Arc::clone(&self.pool)
        };
        // A back end knows it by its name, so that must not depend on the order of subscribing.
        let name = match &options.name {
            Some(name) => name.as_str().into(),
            None if served => pattern.as_str().into(),
            None => id.to_string().into(),
        };
        let subscription =
            Subscription::new(Identity { id, name, pattern, scope }, options, &self.config, pool, handler);
        let subscription = Arc::new(subscription);
        {
            let mut registry = self.subscriptions.lock();
            // While it drains there is nothing to receive any more, and a back end must not be kept busy with it.
            if registry.closed || matches!(self.lifecycle.phase(), Phase::Draining | Phase::Stopped) {
                return Err(SubscribeError::Stopped);
            }
            if let Some(other) = registry.find_by_name(&subscription.name) {
                let pattern = other.pattern.as_str().to_owned();
                return Err(SubscribeError::NameTaken { name: subscription.name.to_string(), pattern });
            }
            registry.by_name.insert(Arc::clone(&subscription.name), id.0);
            registry.by_id.insert(id.0, Arc::clone(&subscription));
            if options.dedicated {
                registry.dedicated.push(Arc::clone(&subscription));
            }
            // Under the lock, so that a subscription is in both or in neither.
            self.router.insert(&subscription.pattern, id.0, Arc::clone(&subscription));
        }
        if let Err(error) = self.bring_up(&subscription) {
            self.remove(&subscription);
            return Err(error);
        }
        Ok(subscription)
    }

    /// Gives a new subscription its threads and its place at the back end, if it needs them.
    fn bring_up(self: &Arc<Self>, subscription: &Arc<Subscription>) -> Result<(), SubscribeError> {
        let running = self.lifecycle.phase() == Phase::Running;
        if running {
            self.start_dedicated(subscription).map_err(|(name, reason)| SubscribeError::Thread { name, reason })?;
        }
        self.bridge.as_ref().map_or(Ok(()), |bridge| bridge.register(subscription, running))
    }

    /// Starts the threads of a dedicated subscription.
    pub(crate) fn start_dedicated(self: &Arc<Self>, subscription: &Subscription) -> Result<(), (String, String)> {
        if Arc::ptr_eq(&subscription.pool, &self.pool) || !subscription.pool.open() {
            return Ok(());
        }
        (1..=subscription.concurrency())
            .try_for_each(|number| self.add_worker(&subscription.pool, &format!("{}-{number}", subscription.name)))
    }

    /// Starts one worker thread for a pool.
    pub(crate) fn add_worker(self: &Arc<Self>, pool: &Arc<Workers>, name: &str) -> Result<(), (String, String)> {
        let worker = Arc::new(Worker::new());
        pool.add_worker(Arc::clone(&worker));
        let (engine, serves, me) = (Arc::clone(self), Arc::clone(pool), Arc::clone(&worker));
        let started = self.lifecycle.spawn(Role::Engine, &format!("worker-{name}"), move || {
            worker::work(&engine, &serves, &me);
            serves.remove_worker(&me);
        });
        if started.is_err() {
            pool.remove_worker(&worker);
        }
        started
    }

    /// Takes a subscription out; what is queued is cancelled. Calls may still run.
    pub(crate) fn remove(self: &Arc<Self>, subscription: &Arc<Subscription>) -> bool {
        let found = {
            let mut registry = self.subscriptions.lock();
            self.router.remove(&subscription.pattern, subscription.id.0);
            registry.by_name.remove(&subscription.name);
            registry.dedicated.retain(|it| it.id != subscription.id);
            registry.by_id.remove(&subscription.id.0).is_some()
        };
        subscription.close();
        if let Some(bridge) = &self.bridge {
            // Before anything is given back, or it would come in again.
            bridge.ring();
        }
        self.cancel_all(subscription);
        if let Some(bridge) = &self.bridge {
            bridge.unregister(subscription);
        }
        if !Arc::ptr_eq(&subscription.pool, &self.pool) {
            subscription.pool.close();
        }
        found
    }

    /// Removes a subscription and waits until no call runs, except inside a handler or on a worker thread, where it never
    /// waits. Returns how many calls still run, or nothing if it is unknown.
    pub(crate) fn unsubscribe(self: &Arc<Self>, id: SubscriptionId) -> Option<u64> {
        let subscription = self.subscriptions.lock().by_id.get(&id.0).cloned()?;
        if !self.remove(&subscription) {
            return None;
        }
        if !crate::delivery::in_handler() {
            subscription.wait_for_calls();
        }
        Some(subscription.running())
    }
}

/// The name of the host, or the original's fallback.
fn default_instance_id() -> String {
    let from_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    std::env::var("HOSTNAME")
        .ok()
        .or_else(from_kernel)
        .map(|name| name.trim().to_owned())
        .filter(|name| (1..=Event::MAX_TEXT_BYTES).contains(&name.len()))
        .unwrap_or_else(|| "resolvespec-instance".to_owned())
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("instance_id", &self.instance_id).finish_non_exhaustive()
    }
}
