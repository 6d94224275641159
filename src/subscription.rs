//! A running subscription: its handler, its inbox, and the *permits* that say who may run it.
//!
//! A permit is the right to run one delivery at a time; there are as many as the subscription's concurrency. A worker that
//! attends to the subscription holds one, and so does a thread that `publish_sync` lends. As long as a permit is taken, its holder looks
//! at the inbox before it gives the permit back, so a publisher need not call anybody. What an attempt does is in `worker`.

mod call_stack;
mod counters;
mod delivery;
mod handler;
mod pool;
mod registry;
mod reservation;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};

use crossbeam_utils::CachePadded;
use parking_lot::{Condvar, Mutex};

use crate::base::nanos;
use crate::config::{Config, Overflow, RetryPolicy, Scope, StartPosition, SubscribeOptions};
use crate::event::Pattern;
use crate::outcome::SubscriptionId;
use crate::queue::Inbox;
pub(crate) use call_stack::{CallScope, become_worker, current_calls, in_handler};
pub(crate) use counters::SubscriptionCounters;
pub(crate) use delivery::CallContext;
pub use delivery::Delivery;
pub(crate) use handler::guarded;
pub use handler::{HandlerError, IntoOutcome, Outcome};
use pool::Paced;
pub(crate) use pool::{Pace, Pool, SEARCH, Taken, Worker};
pub(crate) use registry::Registry;
pub(crate) use reservation::{Reservation, Unreserved, release, reserve};

/// A handler, whatever closure it came from.
pub(crate) type Handler = Box<dyn Fn(&Delivery<'_>) -> Outcome + Send + Sync>;

/// The pool that serves subscriptions.
pub(crate) type Workers = Pool<Arc<Subscription>>;

/// Calls from this length on are worth a thread each.
const SLOW_CALL: u64 = 50_000;
/// Calls from this length on must not take the whole pool.
pub(crate) const LONG_CALL: u64 = 5_000_000;
/// One call of this length is enough to tell; shorter ones may have been interrupted by the machine.
const SURELY_LONG_CALL: u64 = 20_000_000;
/// So many shorter calls in a row, and the subscription counts as quicker again.
const QUICKER_AFTER: u32 = 16;
/// A quick subscription is worth a second thread when so many deliveries are queued.
const BACKLOG: u64 = 256;

/// See the module's page.
pub(crate) struct Subscription {
    pub(crate) id: SubscriptionId,
    pub(crate) name: Arc<str>,
    pub(crate) pattern: Pattern,
    pub(crate) scope: Scope,
    pub(crate) start: SubscriptionStart,
    pub(crate) overflow: Overflow,
    pub(crate) retry: RetryPolicy,
    /// In nanoseconds.
    pub(crate) handler_deadline: Option<u64>,
    pub(crate) handler: Handler,
    pub(crate) inbox: Inbox,
    pub(crate) counters: CachePadded<SubscriptionCounters>,
    pub(crate) pool: Arc<Workers>,
    concurrency: u32,
    /// How many permits are worth taking while calls are quick.
    quick_permits: u32,
    permits: AtomicU32,
    /// A [`State`].
    state: AtomicU8,
    pace: AtomicU8,
    /// Calls in a row that did not fit the pace.
    misfits: AtomicU32,
    watched: AtomicBool,
    calls_ended: Condvar,
    calls_gate: Mutex<()>,
}

/// Where it begins at a back end, and whether it stays there.
#[derive(Debug, Clone)]
pub(crate) struct SubscriptionStart {
    pub(crate) durable: bool,
    pub(crate) position: StartPosition,
    pub(crate) change_pattern: bool,
}

/// Whether calls may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// Not until it is resumed.
    Paused,
    /// Never again: it was removed, or the broker has stopped.
    Closed,
}

/// What a subscription is known by.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: SubscriptionId,
    pub(crate) name: Arc<str>,
    pub(crate) pattern: Pattern,
    pub(crate) scope: Scope,
}

impl Subscription {
    /// `options` have been checked.
    pub(crate) fn new(
        identity: Identity,
        options: &SubscribeOptions,
        config: &Config,
        pool: Arc<Workers>,
        handler: Handler,
    ) -> Self {
        let concurrency = match (options.ordered, options.concurrency) {
            (true, _) => 1,
            (false, Some(calls)) => calls,
            (false, None) => (config.worker_count / 2).max(1),
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            id: identity.id,
            name: identity.name,
            pattern: identity.pattern,
            scope: identity.scope,
            start: SubscriptionStart {
                durable: options.durable,
                position: options.start.clone(),
                change_pattern: options.change_pattern,
            },
            overflow: options.overflow.unwrap_or(config.overflow),
            retry: options.retry_policy.clone().unwrap_or_else(|| config.retry_policy.clone()),
            handler_deadline: options.handler_deadline.map(nanos),
            handler,
            inbox: Inbox::new(
                options.queue_capacity.unwrap_or(config.buffer_size),
                options.max_waiting.unwrap_or(config.max_waiting),
                options.ordered,
            ),
            counters: CachePadded::default(),
            pool,
            concurrency: concurrency as u32,
            quick_permits: concurrency.min(cores.saturating_sub(1).max(1)) as u32,
            permits: AtomicU32::new(0),
            state: AtomicU8::new(State::Open as u8),
            pace: AtomicU8::new(Pace::Quick as u8),
            misfits: AtomicU32::new(0),
            watched: AtomicBool::new(false),
            calls_ended: Condvar::new(),
            calls_gate: Mutex::new(()),
        }
    }

    pub(crate) fn concurrency(&self) -> u32 {
        self.concurrency
    }

    /// Takes a permit, if one is free.
    pub(crate) fn try_permit(&self) -> bool {
        self.permits
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |permits| {
                (permits < self.concurrency).then_some(permits + 1)
            })
            .is_ok()
    }

    /// Whether every permit runs a call: a permit that only searches, or whose token waits, is as good as free.
    pub(crate) fn all_permits_in_calls(&self) -> bool {
        self.running() >= u64::from(self.concurrency)
    }

    /// Gives a permit back. True if there is something to run and the caller has a permit again.
    pub(crate) fn release_permit(&self) -> bool {
        self.permits.fetch_sub(1, Ordering::SeqCst);
        // Pairs with the load in `wake_worker`: this sees the delivery, or the publisher sees the free permit.
        fence(Ordering::SeqCst);
        self.has_ready() && self.try_permit()
    }

    /// Something waits for a worker that may run it.
    pub(crate) fn has_ready(&self) -> bool {
        self.inbox.has_ready() && !self.is_paused()
    }

    /// Sees to it that what was put in the inbox is run. True if nobody is free for it at this moment, so that it has to be
    /// watched.
    pub(crate) fn wake_worker(self: &Arc<Self>) -> bool {
        // The push has moved the queue's tail (or `due_len`) by a sequentially consistent exchange, which orders it before this
        // load as a fence would, and a fence costs 11 ns. Should the queue ever do less, the timer's watch finds the delivery.
        let permits = self.permits.load(Ordering::SeqCst);
        let wanted = match self.pace() {
            _ if permits == 0 => 1,
            Pace::Quick if permits >= self.quick_permits || self.inbox.queued() <= BACKLOG => {
                return !self.is_watched();
            }
            Pace::Quick => self.quick_permits,
            Pace::Slow | Pace::Long => self.concurrency,
        };
        if permits >= wanted || !self.try_permit() {
            return !self.is_watched();
        }
        !self.pool.submit(Arc::clone(self)) && !self.is_watched()
    }

    /// Brings in another worker because nothing moves. False if all permits are taken.
    pub(crate) fn wake_another_worker(self: &Arc<Self>) -> bool {
        self.try_permit() && {
            self.pool.submit(Arc::clone(self));
            true
        }
    }

    fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    /// True for the caller that starts watching.
    pub(crate) fn start_watch(&self) -> bool {
        !self.watched.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn end_watch(&self) {
        self.watched.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn pace(&self) -> Pace {
        match self.pace.load(Ordering::Relaxed) {
            0 => Pace::Quick,
            1 => Pace::Slow,
            _ => Pace::Long,
        }
    }

    /// Notes how long a call took.
    pub(crate) fn note_call(&self, took: u64) {
        let measured = match took {
            LONG_CALL.. => Pace::Long,
            SLOW_CALL.. => Pace::Slow,
            _ => Pace::Quick,
        };
        let pace = self.pace();
        if measured == pace {
            if self.misfits.load(Ordering::Relaxed) != 0 {
                self.misfits.store(0, Ordering::Relaxed);
            }
            return;
        }
        let misfits = self.misfits.load(Ordering::Relaxed) + 1;
        let sure = if measured > pace { took >= SURELY_LONG_CALL || misfits >= 2 } else { misfits >= QUICKER_AFTER };
        self.misfits.store(if sure { 0 } else { misfits }, Ordering::Relaxed);
        if sure {
            self.pace.store(measured as u8, Ordering::Relaxed);
        }
    }

    /// A call is running for so long that it counts as long before it ends.
    pub(crate) fn note_long_call(&self) {
        self.pace.store(Pace::Long as u8, Ordering::Relaxed);
    }

    /// Begins a call, unless the subscription is not open: then nothing may be called.
    pub(crate) fn begin_call(&self) -> State {
        self.counters.started.fetch_add(1, Ordering::SeqCst);
        let state = self.state();
        if state != State::Open {
            self.counters.started.fetch_sub(1, Ordering::SeqCst);
            self.calls_changed();
        }
        state
    }

    /// A call has ended, and so has everything that follows from it.
    pub(crate) fn end_call(&self) {
        self.counters.finished.fetch_add(1, Ordering::SeqCst);
        if self.is_closed() {
            self.calls_changed();
        }
    }

    fn calls_changed(&self) {
        drop(self.calls_gate.lock());
        self.calls_ended.notify_all();
    }

    /// Calls that are running.
    pub(crate) fn running(&self) -> u64 {
        let finished = self.counters.finished.load(Ordering::SeqCst);
        self.counters.started.load(Ordering::SeqCst).saturating_sub(finished)
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::SeqCst) {
            0 => State::Open,
            1 => State::Paused,
            _ => State::Closed,
        }
    }

    /// From now on no call begins until it is resumed. True for the caller that has changed that.
    pub(crate) fn pause(&self) -> bool {
        self.change(State::Open, State::Paused)
    }

    /// Calls may begin again. True for the caller that has changed that.
    pub(crate) fn resume(&self) -> bool {
        self.change(State::Paused, State::Open)
    }

    fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.state() == State::Paused
    }

    /// From now on no call begins.
    pub(crate) fn close(&self) {
        self.state.store(State::Closed as u8, Ordering::SeqCst);
        self.inbox.wake_publishers();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state() == State::Closed
    }

    /// Waits until no call is running. Only after `close`.
    pub(crate) fn wait_for_calls(&self) {
        let mut gate = self.calls_gate.lock();
        while self.running() > 0 {
            self.calls_ended.wait(&mut gate);
        }
    }
}

impl Paced for Arc<Subscription> {
    fn pace(&self) -> Pace {
        Subscription::pace(self)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}
