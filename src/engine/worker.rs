//! The body of a worker thread: search for a token, attend to its subscription, run its deliveries one by one, sleep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use crate::subscription::{Pace, SEARCH, Subscription, TakenToken, Worker, Workers, become_worker};

/// How many deliveries of a quick subscription a worker runs before it turns to another one that waits.
const BATCH: u32 = 64;

/// Time between two polls of a searching worker.
const POLL_EVERY: Duration = Duration::from_nanos(500);
/// How long a searching worker only spins. After that it yields its core between polls.
const SPIN: Duration = Duration::from_micros(10);
/// If deliveries arrive at shorter intervals than this, the worker lets them gather between two polls, ...
const GATHER_BELOW: Duration = Duration::from_micros(1);
/// ... for at most this long.
const MAX_GATHER: Duration = Duration::from_micros(8);

/// A token of the pool: a subscription, with a permit.
type Token = Arc<Subscription>;

/// Runs a worker until the pool is closed or lets the worker go.
pub(super) fn work(engine: &Arc<Engine>, pool: &Workers, worker: &Arc<Worker<Token>>) {
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

/// Polls the pool for a token, at most for `SEARCH`, unless another worker searches. True if a token is ready.
fn search(pool: &Workers) -> bool {
    if !pool.start_search() {
        return false;
    }
    spin(|| pool.has_ready() || pool.is_closed());
    pool.end_search();
    pool.has_ready()
}

/// Spins until a condition holds, at most for `SEARCH`. Polls seldom: each poll takes a cache line from publishers.
fn spin(until: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !until() {
        let polled = started.elapsed();
        if polled >= SEARCH {
            return false;
        }
        if polled > SPIN {
            std::thread::yield_now();
        }
        while started.elapsed() < polled + POLL_EVERY {
            std::hint::spin_loop();
        }
    }
    true
}

/// Runs the deliveries of a subscription, under the token's permit, until none is left or other subscriptions wait.
fn attend(engine: &Arc<Engine>, pool: &Workers, worker: &Arc<Worker<Token>>, taken: TakenToken<Token>) {
    pool.attend(worker, &taken);
    let long = taken.is_long();
    let subscription = taken.token;
    let mut pace = PollPace::new();
    loop {
        if run_batches(engine, pool, worker, &subscription, long, &mut pace) == RunEnd::OthersWait {
            pool.attended(worker);
            // The permit stays with the token.
            pool.submit(subscription);
            return;
        }
        let more = !pool.is_closed() && (search_here(pool, &subscription) || subscription.release_permit());
        if !more {
            break;
        }
    }
    pool.attended(worker);
}

/// Why a worker stopped running the deliveries of a subscription.
#[derive(PartialEq, Eq)]
enum RunEnd {
    NothingLeft,
    OthersWait,
}

/// Runs deliveries, as many per poll as it found, until none is left, or for a batch if other subscriptions wait.
fn run_batches(
    engine: &Arc<Engine>,
    pool: &Workers,
    worker: &Worker<Token>,
    subscription: &Token,
    long: bool,
    pace: &mut PollPace,
) -> RunEnd {
    let mut now = engine.clock.now();
    let mut left = BATCH;
    while !pool.is_closed() {
        let found = subscription.inbox.ready_len();
        if found == 0 || subscription.is_paused() {
            break;
        }
        pace.found(found);
        for _ in 0..found {
            if pool.is_closed() || subscription.is_paused() {
                break;
            }
            let Some(delivery) = subscription.inbox.pop() else { break };
            if subscription.pace() != Pace::Quick && subscription.has_ready() {
                engine.wake_worker(subscription);
            }
            worker.begin_call();
            now = engine.attempt(subscription, delivery, now);
            worker.end_call();
            left -= 1;
            if left == 0 || long || subscription.pace() == Pace::Long {
                if (long || pool.has_ready()) && subscription.has_ready() {
                    return RunEnd::OthersWait;
                }
                left = BATCH;
            }
        }
        pace.pause(|| pool.has_ready() || pool.is_closed());
    }
    RunEnd::NothingLeft
}

/// The time between a worker's polls of an inbox. Each poll takes a cache line from the publishers, which costs them
/// more than publishing an event. If events arrive faster than that, it pays to let some gather.
struct PollPace {
    last_poll: Instant,
    gather: Duration,
}

impl PollPace {
    fn new() -> Self {
        Self { last_poll: Instant::now(), gather: Duration::ZERO }
    }

    fn found(&mut self, deliveries: usize) {
        let now = Instant::now();
        self.gather = gather(self.gather, now - self.last_poll, deliveries);
        self.last_poll = now;
    }

    /// Waits until the next poll is due, or until other work is ready.
    fn pause(&self, otherwise_busy: impl Fn() -> bool) {
        while self.last_poll.elapsed() < self.gather && !otherwise_busy() {
            std::hint::spin_loop();
        }
    }
}

/// How long deliveries gather until the next poll: doubled while they come fast, else zero.
fn gather(before: Duration, elapsed: Duration, found: usize) -> Duration {
    let apart = elapsed / u32::try_from(found).unwrap_or(u32::MAX);
    if apart < GATHER_BELOW { (2 * before).clamp(POLL_EVERY, MAX_GATHER) } else { Duration::ZERO }
}

/// Polls a subscription for more deliveries, at most for `SEARCH`, unless another worker searches. Meanwhile the permit
/// stays taken, so a publisher need not wake a worker. True if the subscription has deliveries.
fn search_here(pool: &Workers, subscription: &Subscription) -> bool {
    if !pool.start_search() {
        return subscription.has_ready();
    }
    spin(|| subscription.has_ready() || pool.has_ready() || pool.is_closed());
    pool.end_search();
    let found = subscription.has_ready();
    if found {
        // Another worker has to take the tokens of other subscriptions that came while this one searched.
        pool.pass_on();
    }
    found
}
