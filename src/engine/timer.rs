//! The timer thread: brings back what is due, watches that nothing stands still, lets the pool grow and shrink, cleans up.
//!
//! One `tick` on a plain state; the thread only sleeps between ticks. It ticks each [`TICK`] while something is watched, else four
//! times a second, and once while nothing runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::threads::Phase;
use crate::base::nanos;
use crate::subscription::{LONG_CALL, Subscription, Worker, become_worker};

/// Time between ticks while something is watched, in nanoseconds.
const TICK: u64 = 1_000_000;
/// Time between ticks otherwise, while a handler runs.
const HEARTBEAT: u64 = 250_000_000;
/// The same while none does: then there is nothing to look at.
const IDLE_HEARTBEAT: u64 = 1_000_000_000;
/// For so many ticks a subscription stays watched when nothing waits for it any more.
const QUIET_TICKS: u32 = 16;
/// When every worker is inside a handler for so long, the pool grows.
const GROW_AFTER: u64 = 20_000_000;
/// A worker beyond `worker_count` that slept for so long leaves.
const LEAVE_AFTER: u64 = 10_000_000_000;
/// Time between looks at the wall clock.
const RESYNC: u64 = 1_000_000_000;

/// Runs the timer until the broker has stopped. Its time counts from `started`, however late the thread gets to run.
pub(crate) fn run(engine: &Arc<Engine>, started: u64) {
    become_worker();
    engine.timer.thread.get_or_init(std::thread::current);
    let mut state = TimerState::new(started, nanos(engine.config.cleanup_interval));
    while engine.lifecycle.phase() != Phase::Stopped {
        let next = state.tick(engine, engine.clock.now());
        std::thread::park_timeout(engine.clock.sleep_until(next));
    }
}

/// What the timer remembers between ticks.
#[derive(Debug)]
struct TimerState {
    watched: Vec<Watched>,
    /// By address: the call that a worker was last seen in, and since when.
    calls: HashMap<usize, SeenCall>,
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

#[derive(Debug, Clone, Copy)]
struct SeenCall {
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

    /// Does what is to be done now. Returns when to tick again.
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

    /// Which workers are inside of calls, and since when: long calls, stuck ones, and a pool that must grow.
    fn check_workers(&mut self, engine: &Arc<Engine>, now: u64) {
        let (workers, mut dedicated) = (engine.pool.workers(), Vec::new());
        for subscription in engine.subscriptions.lock().dedicated() {
            dedicated.extend(subscription.pool.workers());
        }
        let limit = nanos(engine.config.max_handler_time);
        let mut seen = HashMap::with_capacity(workers.len() + dedicated.len());
        let (mut stuck, mut held_up) = (0, 0);
        for (number, worker) in workers.iter().chain(&dedicated).enumerate() {
            let Some(call) = self.seen_call(worker, now) else { continue };
            let lasts = now - call.since;
            let shared = number < workers.len();
            if shared
                && lasts >= LONG_CALL
                && let Some(subscription) = engine.pool.note_long(worker)
            {
                subscription.note_long_call();
            }
            held_up += usize::from(shared && lasts >= GROW_AFTER);
            stuck += usize::from(lasts >= limit);
            let report = lasts >= limit && !call.reported;
            if report && let Some(subscription) = worker.attending() {
                tracing::warn!(subscription = &*subscription.name, "a handler runs longer than max_handler_time");
            }
            seen.insert(address(worker), SeenCall { reported: call.reported || report, ..call });
        }
        self.calls = seen;
        engine.timer.stuck.store(stuck, Ordering::Relaxed);
        if held_up == workers.len() && engine.pool.has_ready() && now >= self.next_growth {
            self.next_growth = now + GROW_AFTER;
            grow(engine, workers.len());
        }
    }

    /// The call that a worker is in, and since when it was seen in it.
    fn seen_call(&self, worker: &Arc<Worker<Arc<Subscription>>>, now: u64) -> Option<SeenCall> {
        let call = worker.calls();
        if call.is_multiple_of(2) {
            return None;
        }
        let known = self.calls.get(&address(worker)).filter(|seen| seen.call == call);
        Some(known.copied().unwrap_or(SeenCall { call, since: now, reported: false }))
    }
}

fn address(worker: &Arc<Worker<Arc<Subscription>>>) -> usize {
    Arc::as_ptr(worker) as usize
}

/// Adds a worker for each subscription that waits for its first one, or else one.
fn grow(engine: &Arc<Engine>, workers: usize) {
    let room = engine.config.effective_max_workers().saturating_sub(workers);
    for number in 0..engine.pool.waiting().max(1).min(room) {
        if let Err((name, reason)) = engine.add_worker(&engine.pool, &(workers + number + 1).to_string()) {
            tracing::warn!(name, reason, "the worker pool could not grow");
            return;
        }
    }
}

/// Puts the deliveries whose time has come back into their inboxes.
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
    /// Brings in another worker if something waits and nothing moved since the last tick. False when it need not be watched
    /// any more.
    fn tick(&mut self) -> bool {
        let started = self.subscription.counters.started.load(Ordering::Relaxed);
        let moved = std::mem::replace(&mut self.started, started) != started;
        if self.subscription.has_ready() {
            self.quiet_ticks = 0;
            if !moved {
                self.subscription.wake_another_worker();
            }
            return true;
        }
        self.quiet_ticks += 1;
        if self.quiet_ticks < QUIET_TICKS {
            return true;
        }
        self.subscription.end_watch();
        // Something may have arrived before the watch ended: then it goes on.
        self.subscription.has_ready() && self.subscription.start_watch()
    }
}
