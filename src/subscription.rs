//! A running subscription: its handler, its inbox, and the *permits* to run it; and the pool of workers that serves it.
//!
//! A permit is the right to run one delivery at a time; a subscription has as many as its concurrency. A worker that
//! serves the subscription holds one, and so does the thread of a `publish_sync`. The holder checks the inbox again
//! when it gives its permit back, so a publisher that finds a permit taken need not wake a worker.

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
pub(crate) use pool::{Pace, Pool, SEARCH, TakenToken, Worker};
pub(crate) use registry::Registry;
pub(crate) use reservation::{Reservation, Unreserved, release, reserve};

/// A handler, made from any closure whose result is an [`IntoOutcome`].
pub(crate) type Handler = Box<dyn Fn(&Delivery<'_>) -> Outcome + Send + Sync>;

/// A pool of workers that serve subscriptions.
pub(crate) type Workers = Pool<Arc<Subscription>>;

/// Calls of at least this many nanoseconds are worth a worker each.
const SLOW_CALL: u64 = 50_000;
/// Calls of at least this many nanoseconds must not take the whole pool.
pub(crate) const LONG_CALL: u64 = 5_000_000;
/// One call of this many nanoseconds slows the pace down. Of shorter ones it takes two: one may have been preempted.
const SURELY_LONG_CALL: u64 = 20_000_000;
/// After this many quicker calls in a row the pace is quicker again.
const QUICKER_AFTER: u32 = 16;
/// A quick subscription is worth further workers when more deliveries than this are queued.
const BACKLOG: u64 = 256;

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
    /// How many permits are used while calls are quick: at most one less than there are cores.
    quick_permits: u32,
    permits: AtomicU32,
    /// A [`State`].
    state: AtomicU8,
    pace: AtomicU8,
    /// Calls in a row that were slower or quicker than the pace.
    off_pace: AtomicU32,
    /// The timer checks at each tick that this subscription makes progress.
    watched: AtomicBool,
    calls_ended: Condvar,
    calls_gate: Mutex<()>,
}

/// Where a subscription starts at a back end, and whether its registration outlives this instance.
#[derive(Debug, Clone)]
pub(crate) struct SubscriptionStart {
    pub(crate) durable: bool,
    pub(crate) position: StartPosition,
    pub(crate) change_pattern: bool,
}

/// Whether calls of the handler may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// Not until the subscription is resumed.
    Paused,
    /// Never again: the subscription was removed, or the broker has stopped.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: SubscriptionId,
    pub(crate) name: Arc<str>,
    pub(crate) pattern: Pattern,
    pub(crate) scope: Scope,
}

impl Subscription {
    /// Makes an open subscription. The caller has checked `options`.
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
            off_pace: AtomicU32::new(0),
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

    /// Whether a call runs under every permit. One whose holder searches, or whose token waits, is as good as free.
    pub(crate) fn all_permits_in_calls(&self) -> bool {
        self.running() >= u64::from(self.concurrency)
    }

    /// Gives a permit back. True if a delivery is ready and the caller has a permit again.
    pub(crate) fn release_permit(&self) -> bool {
        self.permits.fetch_sub(1, Ordering::SeqCst);
        // Pairs with `wake_worker`. The holder lowers `permits`, then reads the inbox; a publisher pushes to the inbox,
        // then loads `permits`. So the holder sees the delivery, or the publisher sees the free permit.
        fence(Ordering::SeqCst);
        self.has_ready() && self.try_permit()
    }

    /// Whether a delivery waits for a worker and may run.
    pub(crate) fn has_ready(&self) -> bool {
        self.inbox.has_ready() && !self.is_paused()
    }

    /// Gets a worker for a pushed delivery, unless a holder of a permit will find it. True if no further worker is free
    /// at this moment, so that the timer has to watch the subscription.
    pub(crate) fn wake_worker(self: &Arc<Self>) -> bool {
        // Pairs with the fence in `release_permit`. The push changed the queue's tail (or `due_len`) by a SeqCst
        // read-modify-write, which orders it before this load as a fence would; a fence costs 11 ns. If the queue ever
        // did less, the timer's watch would find the delivery.
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

    /// Brings in another worker, because no call has begun since the timer's last tick. False if all permits are taken.
    pub(crate) fn wake_another_worker(self: &Arc<Self>) -> bool {
        self.try_permit() && {
            self.pool.submit(Arc::clone(self));
            true
        }
    }

    fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    /// Marks the subscription as watched. True for the caller that has changed that.
    pub(crate) fn start_watch(&self) -> bool {
        !self.watched.swap(true, Ordering::AcqRel)
    }

    /// Ends the watch. The timer has to check the inbox once more after this call.
    pub(crate) fn end_watch(&self) {
        self.watched.store(false, Ordering::Relaxed);
        // Pairs with the load of `watched` in `wake_worker`. The timer clears it, then reads the inbox; a publisher
        // pushes, then loads it. So the timer sees the delivery, or the publisher sees that the watch has ended.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn pace(&self) -> Pace {
        match self.pace.load(Ordering::Relaxed) {
            0 => Pace::Quick,
            1 => Pace::Slow,
            _ => Pace::Long,
        }
    }

    /// Adapts the pace to a call that took this many nanoseconds.
    pub(crate) fn note_call(&self, took: u64) {
        let measured = match took {
            LONG_CALL.. => Pace::Long,
            SLOW_CALL.. => Pace::Slow,
            _ => Pace::Quick,
        };
        let pace = self.pace();
        if measured == pace {
            if self.off_pace.load(Ordering::Relaxed) != 0 {
                self.off_pace.store(0, Ordering::Relaxed);
            }
            return;
        }
        let off_pace = self.off_pace.load(Ordering::Relaxed) + 1;
        let sure = if measured > pace { took >= SURELY_LONG_CALL || off_pace >= 2 } else { off_pace >= QUICKER_AFTER };
        self.off_pace.store(if sure { 0 } else { off_pace }, Ordering::Relaxed);
        if sure {
            self.pace.store(measured as u8, Ordering::Relaxed);
        }
    }

    /// Sets the pace to long, for a call that has not ended yet.
    pub(crate) fn note_long_call(&self) {
        self.pace.store(Pace::Long as u8, Ordering::Relaxed);
    }

    /// Begins a call. If the returned state is not open, no call has begun and the handler must not be called.
    pub(crate) fn begin_call(&self) -> State {
        // Counted before the state is loaded: `unsubscribe` stores `Closed` and then reads the count (both SeqCst), so
        // it waits for this call, or this sees `Closed`.
        self.counters.started.fetch_add(1, Ordering::SeqCst);
        let state = self.state();
        if state != State::Open {
            self.counters.started.fetch_sub(1, Ordering::SeqCst);
            self.calls_changed();
        }
        state
    }

    /// Ends a call, after its outcome is settled.
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

    /// Pauses the subscription: no call begins until it is resumed. True for the caller that has changed that.
    pub(crate) fn pause(&self) -> bool {
        self.change(State::Open, State::Paused)
    }

    /// Resumes the subscription. True for the caller that has changed that.
    pub(crate) fn resume(&self) -> bool {
        self.change(State::Paused, State::Open)
    }

    fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.state() == State::Paused
    }

    /// Closes the subscription: no call begins any more, and blocked publishers wake up.
    pub(crate) fn close(&self) {
        self.state.store(State::Closed as u8, Ordering::SeqCst);
        self.inbox.wake_publishers();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state() == State::Closed
    }

    /// Blocks until no call is running. Only after [`close`](Self::close).
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
