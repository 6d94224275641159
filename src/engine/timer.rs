//! The timer thread: enqueues due retries, watches subscriptions for progress, sizes the worker pool, cleans up.
//!
//! Each `tick` works on a plain state; the thread sleeps between ticks. It ticks every [`TICK`] while a subscription is
//! watched or waits for a worker, else every [`HEARTBEAT`], and every [`IDLE_HEARTBEAT`] while no handler runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::threads::Phase;
use crate::base::nanos;
use crate::subscription::{LONG_CALL, Subscription, Worker, become_worker};

/// Time between ticks while a subscription is watched, in nanoseconds.
const TICK: u64 = 1_000_000;
/// Time between ticks otherwise, while a handler runs, in nanoseconds.
const HEARTBEAT: u64 = 250_000_000;
/// Time between ticks while no handler runs, in nanoseconds.
const IDLE_HEARTBEAT: u64 = 1_000_000_000;
/// The number of ticks for which a subscription stays watched after its last waiting delivery.
const QUIET_TICKS: u32 = 16;
/// The pool grows when every worker has been inside a call for this long, in nanoseconds.
const GROW_AFTER: u64 = 20_000_000;
/// A worker beyond `worker_count` leaves after it has slept for this long, in nanoseconds.
const LEAVE_AFTER: u64 = 10_000_000_000;
/// Time between two readings of the wall clock, in nanoseconds.
const RESYNC: u64 = 1_000_000_000;

/// Runs the timer until the broker has stopped. Intervals count from `started`, also if the thread is scheduled late.
pub(crate) fn run(engine: &Arc<Engine>, started: u64) {
    become_worker();
    engine.timer.thread.get_or_init(std::thread::current);
    let mut state = TimerState::new(started, nanos(engine.config.cleanup_interval));
    while engine.lifecycle.phase() != Phase::Stopped {
        let next = state.tick(engine, engine.clock.now());
        std::thread::park_timeout(engine.clock.sleep_until(next));
    }
}

/// The state of the timer between ticks.
#[derive(Debug)]
struct TimerState {
    watched: Vec<Watched>,
    /// The call in which the last check found each worker, by the worker's address.
    calls: HashMap<usize, ObservedCall>,
    next_heartbeat: u64,
    next_clean_up: u64,
    next_resync: u64,
    next_growth: u64,
}

#[derive(Debug)]
struct Watched {
    subscription: Arc<Subscription>,
    started: u64,
    quiet_ticks: u32,
}

/// A call in which a worker was found.
#[derive(Debug, Clone, Copy)]
struct ObservedCall {
    call: u64,
    since: u64,
    reported: bool,
}

impl TimerState {
    fn new(now: u64, cleanup_interval: u64) -> Self {
        Self {
            watched: Vec::new(),
            calls: HashMap::new(),
            next_heartbeat: now,
            next_clean_up: now.saturating_add(cleanup_interval),
            next_resync: now,
            next_growth: now,
        }
    }

    /// Does the work that is due. Returns the time of the next tick.
    fn tick(&mut self, engine: &Arc<Engine>, now: u64) -> u64 {
        enqueue_due(engine, now);
        engine.timer.ticking.store(true, Ordering::SeqCst);
        while let Some(subscription) = engine.timer.watched.pop() {
            let started = subscription.counters.started.load(Ordering::Relaxed);
            self.watched.push(Watched { subscription, started, quiet_ticks: 0 });
        }
        self.watched.retain_mut(|watched| watched.tick());
        engine.pool.pass_on();
        self.check_workers(engine, now);
        if now >= self.next_clean_up {
            self.next_clean_up = now.saturating_add(nanos(engine.config.cleanup_interval));
            let oldest = engine.clock.wall(now).saturating_sub(nanos(engine.config.max_age));
            engine.store.clean_up(oldest);
        }
        if now >= self.next_resync {
            self.next_resync = now + RESYNC;
            engine.clock.resync();
        }
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + if self.calls.is_empty() { IDLE_HEARTBEAT } else { HEARTBEAT };
            if !engine.store.is_small() {
                engine.fit_store();
            }
            while engine.pool.shrink(engine.config.worker_count, now.saturating_sub(LEAVE_AFTER)) {}
        }
        let busy = !self.watched.is_empty() || engine.pool.has_ready();
        engine.timer.ticking.store(busy, Ordering::SeqCst);
        if busy || !engine.timer.watched.is_empty() {
            return now + TICK;
        }
        let due = engine.timer.delayed.next_due().unwrap_or(u64::MAX);
        due.min(self.next_heartbeat).min(self.next_clean_up)
    }

    /// Checks how long each worker has been inside its call: marks long calls, reports stuck ones, grows the pool.
    fn check_workers(&mut self, engine: &Arc<Engine>, now: u64) {
        let (workers, mut dedicated) = (engine.pool.workers(), Vec::new());
        for subscription in engine.subscriptions.lock().dedicated() {
            dedicated.extend(subscription.pool.workers());
        }
        let limit = nanos(engine.config.max_handler_time);
        let mut calls = HashMap::with_capacity(workers.len() + dedicated.len());
        let (mut stuck, mut occupied) = (0, 0);
        for (number, worker) in workers.iter().chain(&dedicated).enumerate() {
            let Some(call) = self.observe_call(worker, now) else { continue };
            let lasts = now - call.since;
            let shared = number < workers.len();
            if shared
                && lasts >= LONG_CALL
                && let Some(subscription) = engine.pool.note_long(worker)
            {
                subscription.note_long_call();
            }
            occupied += usize::from(shared && lasts >= GROW_AFTER);
            stuck += usize::from(lasts >= limit);
            let report = lasts >= limit && !call.reported;
            if report && let Some(subscription) = worker.attending() {
                tracing::warn!(subscription = &*subscription.name, "a handler runs longer than max_handler_time");
            }
            calls.insert(address(worker), ObservedCall { reported: call.reported || report, ..call });
        }
        self.calls = calls;
        engine.timer.stuck.store(stuck, Ordering::Relaxed);
        if occupied == workers.len() && engine.pool.has_ready() && now >= self.next_growth {
            self.next_growth = now + GROW_AFTER;
            grow(engine, workers.len());
        }
    }

    /// The call that a worker is inside of, and the time of the first check that found it there.
    fn observe_call(&self, worker: &Arc<Worker<Arc<Subscription>>>, now: u64) -> Option<ObservedCall> {
        let call = worker.calls();
        if call.is_multiple_of(2) {
            return None;
        }
        let observed = self.calls.get(&address(worker)).filter(|observed| observed.call == call);
        Some(observed.copied().unwrap_or(ObservedCall { call, since: now, reported: false }))
    }
}

fn address(worker: &Arc<Worker<Arc<Subscription>>>) -> usize {
    Arc::as_ptr(worker) as usize
}

/// Adds a worker for each token that waits in the pool, at least one, up to `max_workers`.
fn grow(engine: &Arc<Engine>, workers: usize) {
    let allowed = engine.config.effective_max_workers().saturating_sub(workers);
    for number in 0..engine.pool.waiting().max(1).min(allowed) {
        if let Err((name, reason)) = engine.add_worker(&engine.pool, &(workers + number + 1).to_string()) {
            tracing::warn!(name, reason, "the worker pool could not grow");
            return;
        }
    }
}

/// Enqueues the delayed deliveries that are due.
fn enqueue_due(engine: &Arc<Engine>, now: u64) {
    while let Some(waiting) = engine.timer.delayed.take_due(now) {
        let subscription = waiting.subscription;
        if subscription.is_closed() {
            engine.cancel(&subscription, waiting.delivery);
            continue;
        }
        subscription.inbox.end_waiting(waiting.delivery);
        engine.after_enqueue(&subscription);
    }
}

impl Watched {
    /// Wakes another worker if deliveries wait and no call has begun since the last tick. False if the watch has ended.
    fn tick(&mut self) -> bool {
        let started = self.subscription.counters.started.load(Ordering::Relaxed);
        let progressed = std::mem::replace(&mut self.started, started) != started;
        if self.subscription.has_ready() {
            self.quiet_ticks = 0;
            if !progressed {
                self.subscription.wake_another_worker();
            }
            return true;
        }
        self.quiet_ticks += 1;
        if self.quiet_ticks < QUIET_TICKS {
            return true;
        }
        self.subscription.end_watch();
        // A delivery may have arrived before the watch ended: then the watch begins again.
        self.subscription.has_ready() && self.subscription.start_watch()
    }
}
