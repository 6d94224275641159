//! The engine: the running parts of one broker, shared by all its threads, and the verbs that move an event.
//!
//! An event passes through these steps:
//!
//! 1. *Route* ([`publish`]): the router returns the subscriptions whose patterns match the event type.
//! 2. *Admit* ([`admission`]): the bounds of the broker are checked, and a place is reserved in the queue of each
//!    subscription. If a queue is full, its overflow policy decides: refuse, wait, or drop.
//! 3. *Store* ([`publish`]): the store keeps a record of the event. From here on the event is accepted.
//! 4. *Enqueue* ([`publish`]): each inbox gets a delivery, and a worker is woken if none attends to the subscription.
//! 5. *Attempt* ([`worker`], [`attempt`]): a worker with a permit takes the delivery, releases its place and calls the
//!    handler.
//! 6. *Settle* ([`settle`]): `decide` turns the outcome into a verdict, a retry with a delay, or a dead letter. A retry
//!    waits in the queue of the [`timer`], or at the back end ([`bridge`]).
//!
//! With a back end, [`bridge`] sends the event after step 2 (buffered: after step 3), and leased deliveries enter at
//! step 3. [`lifecycle`] starts and stops the threads; its `drain` and `abandon_open` find the events that are open at
//! a stop. The verbs may call each other; the state in the rooms below calls none of them.

mod admission;
mod attempt;
mod bridge;
mod in_flight;
mod lifecycle;
mod observers;
mod pause;
mod publish;
mod publish_sync;
mod settle;
mod stream_sink;
mod subscribe;
mod threads;
mod timer;
mod timer_handle;
mod worker;

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::base::Clock;
use crate::bridge::Bridge;
use crate::config::Config;
use crate::event::Event;
use crate::outcome::{DeadLetter, StartError};
use crate::provider::Provider;
use crate::router::Router;
use crate::store::{DeadLetters, Store};
use crate::subscription::{CallContext, Pool, Registry, Subscription, Workers};
use crate::telemetry::{SharedPropagator, Telemetry};
use observers::Observers;
pub(crate) use publish::SubscriptionRoute;
pub(crate) use stream_sink::Streams;
use threads::Lifecycle;
pub(crate) use threads::Phase;
use timer_handle::Timer;

/// The parts of one broker. The lock order is in `ARCHITECTURE.md`. No lock is held while a handler or an observer runs.
pub(crate) struct Engine {
    pub(crate) instance: Instance,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) router: Router<Arc<Subscription>>,
    pub(crate) streams: Streams,
    pub(crate) subscriptions: Registry,
    pub(crate) pool: Arc<Workers>,
    pub(crate) timer: Timer,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) telemetry: Telemetry,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) bridge: Option<Bridge>,
    pub(crate) observers: Observers,
}

/// The identity of one broker.
pub(crate) struct Instance {
    /// The number of the broker in this process.
    pub(crate) number: u64,
    /// The name of this instance, which its events carry.
    pub(crate) id: Arc<str>,
    /// The users' handle, whose drop stops the broker.
    pub(crate) handle: OnceLock<Weak<dyn Any + Send + Sync>>,
    /// Numbers subscriptions and streams.
    next_id: AtomicU64,
    jitter: AtomicU64,
}

impl Engine {
    /// Builds the parts. No thread runs yet.
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
            instance_id = bridge.claim_name(instance_id, config.instance_id.is_some())?;
        }
        let has_operator = bridge.as_ref().is_some_and(|bridge| bridge.operator.is_some());
        let first_dead_letter = if has_operator { DeadLetter::FIRST_LOCAL } else { 1 };
        // Long calls may occupy `max_workers` less half of `worker_count`, but at least `worker_count` threads.
        let for_short = (config.worker_count / 2).max(1);
        let for_long = config.effective_max_workers().saturating_sub(for_short).max(config.worker_count);
        Ok(Arc::new(Self {
            instance: Instance {
                number,
                id: instance_id.into(),
                handle: OnceLock::new(),
                next_id: AtomicU64::new(1),
                jitter: AtomicU64::new(clock.wall(number)),
            },
            store: Store::new(config.max_events, config.max_in_flight),
            router: Router::new(),
            streams: Streams::default(),
            subscriptions: Registry::default(),
            pool: Arc::new(Pool::new(for_long)),
            timer: Timer::new(),
            dead_letters: DeadLetters::new(config.max_dead_letters, first_dead_letter),
            telemetry: Telemetry::new(propagator),
            lifecycle: Arc::new(Lifecycle::new()),
            bridge,
            observers: Observers::default(),
            clock,
            config,
        }))
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.instance.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A uniform number in 0..1 ([splitmix64](https://prng.di.unimi.it/splitmix64.c) over a counter), for jitter.
    pub(crate) fn random(&self) -> f64 {
        let mut x = self.instance.jitter.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The bridge, if events are published through a back end.
    pub(crate) fn mirroring_bridge(&self) -> Option<&Bridge> {
        self.bridge.as_ref().filter(|bridge| bridge.has_mirror)
    }

    pub(crate) fn propagator(&self) -> Option<&SharedPropagator> {
        self.telemetry.propagator.as_ref()
    }

    /// The context of a handler call: the clock, the cancel flag, the broker's handle.
    fn call_context(&self) -> CallContext<'_> {
        CallContext { clock: &self.clock, cancelled: &self.lifecycle.calls_cancelled, handle: &self.instance.handle }
    }
}

/// The host's name, else `resolvespec-instance`.
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
        f.debug_struct("Engine").field("instance_id", &self.instance.id).finish_non_exhaustive()
    }
}
