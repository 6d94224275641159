//! The body of a worker thread: search, attend to a subscription, run one attempt after the other, sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_utils::Backoff;

use crate::delivery::{CallScope, Delivery, become_worker};
use crate::engine::Engine;
use crate::event::Status;
use crate::handler::{Outcome, guarded};
use crate::inbox::Queued;
use crate::pool::{Pace, SEARCH, Taken, Worker};
use crate::subscription::{Subscription, Workers};

/// How many deliveries of a quick subscription a worker runs before it lets another subscription have its turn.
const TURN: u32 = 64;

/// What a worker takes from the pool: a subscription, with a seat.
type Token = Arc<Subscription>;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) outcome: Outcome,
    /// Monotonic time at which the call ended.
    pub(crate) ended: u64,
}

/// Runs until the pool is closed or the worker is asked to leave.
pub(crate) fn work(engine: &Arc<Engine>, pool: &Workers, worker: &Arc<Worker<Token>>) {
    become_worker();
    worker.begin();
    loop {
        let found = pool.take().or_else(|| search(pool).then(|| pool.take()).flatten());
        match found {
            Some(taken) => {
                pool.pass_on();
                attend(engine, pool, worker, taken);
            }
            None => {
                if !pool.sleep(worker, engine.clock.now()) {
                    return;
                }
            }
        }
        if pool.is_closed() {
            return;
        }
    }
}

/// Looks for work for a moment, unless another worker does. True if there is some.
fn search(pool: &Workers) -> bool {
    if !pool.start_search() {
        return false;
    }
    spin(|| pool.has_ready() || pool.is_closed());
    pool.end_search();
    pool.has_ready()
}

/// Spins until a condition holds, at most for `SEARCH`.
fn spin(until: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    let backoff = Backoff::new();
    loop {
        if until() {
            return true;
        }
        if backoff.is_completed() {
            if started.elapsed() >= SEARCH {
                return false;
            }
            std::thread::yield_now();
        }
        backoff.snooze();
    }
}

/// Runs what waits for a subscription, with the seat that came with the token, until nothing is left or others wait.
fn attend(engine: &Arc<Engine>, pool: &Workers, worker: &Arc<Worker<Token>>, taken: Taken<Token>) {
    pool.attend(worker, &taken);
    let long = taken.is_long();
    let subscription = taken.token;
    loop {
        if run_turns(engine, pool, worker, &subscription, long) == Turn::OthersWait {
            pool.attended(worker);
            // The seat goes with the token.
            pool.submit(subscription);
            return;
        }
        let more = !pool.is_closed() && (search_here(pool, &subscription) || subscription.leave_seat());
        if !more {
            break;
        }
    }
    pool.attended(worker);
}

/// Why a worker stopped running the deliveries of a subscription.
#[derive(PartialEq, Eq)]
enum Turn {
    NothingLeft,
    OthersWait,
}

fn run_turns(engine: &Arc<Engine>, pool: &Workers, worker: &Worker<Token>, subscription: &Token, long: bool) -> Turn {
    let mut now = engine.clock.now();
    let mut left = TURN;
    while !pool.is_closed()
        && let Some(delivery) = subscription.inbox.pop()
    {
        if subscription.pace() != Pace::Quick && subscription.inbox.has_ready() {
            engine.call_worker(subscription);
        }
        worker.begin_call();
        now = engine.attempt(subscription, delivery, now);
        worker.end_call();
        left -= 1;
        if left == 0 || long || subscription.pace() == Pace::Long {
            if (long || pool.has_ready()) && subscription.inbox.has_ready() {
                return Turn::OthersWait;
            }
            left = TURN;
        }
    }
    Turn::NothingLeft
}

/// Looks for more work of a subscription for a moment, unless another worker searches: a publisher that finds the seat
/// taken need not wake anybody. True if there is some.
fn search_here(pool: &Workers, subscription: &Subscription) -> bool {
    if !pool.start_search() {
        return subscription.inbox.has_ready();
    }
    spin(|| subscription.inbox.has_ready() || pool.has_ready() || pool.is_closed());
    pool.end_search();
    let found = subscription.inbox.has_ready();
    if found {
        // Somebody else has to see to what came for others while this worker searched.
        pool.pass_on();
    }
    found
}

impl Engine {
    /// Runs one attempt and settles it. The caller holds a seat. `now` is a recent monotonic time; returns a later one.
    pub(crate) fn attempt(self: &Arc<Self>, subscription: &Arc<Subscription>, mut delivery: Queued, now: u64) -> u64 {
        if !subscription.begin_call() {
            subscription.inbox.leave(&mut delivery);
            self.cancel(subscription, delivery);
            return now;
        }
        subscription.inbox.leave(&mut delivery);
        delivery.attempts += 1;
        let counts = self.counts.here();
        counts.attempts.fetch_add(1, Ordering::Relaxed);
        if delivery.attempts > 1 {
            counts.retries.fetch_add(1, Ordering::Relaxed);
            subscription.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        let first = delivery.record.start_attempt(delivery.attempts, self.clock.wall(now));
        if first
            && !delivery.is_leased()
            && let Some(bridge) = &self.bridge
        {
            bridge.note_status(delivery.record.event.id(), Status::Processing, None);
        }
        // Until the attempt is settled: whoever is called meanwhile must not wait for it.
        let callers = delivery.record.watch().map_or(&[][..], |watch| &watch.callers);
        let scope = CallScope::enter(self.number, subscription.id.0, callers);
        let outcome = self.call(subscription, &delivery, now);
        let ended = self.clock.now();
        subscription.note_call(ended - now);
        self.settle(subscription, delivery, Attempt { outcome, ended });
        drop(scope);
        subscription.end_call();
        ended
    }

    /// Calls the handler. A panic is a failed attempt.
    fn call(self: &Arc<Self>, subscription: &Arc<Subscription>, delivery: &Queued, started: u64) -> Outcome {
        let record = &delivery.record;
        let attempt = delivery.attempts;
        let view = Delivery { engine: self, subscription, event: &record.event, attempt, started };
        guarded(|| (subscription.handler)(&view)).unwrap_or_else(|panic| Outcome::Retry(format!("handler {panic}")))
    }
}
