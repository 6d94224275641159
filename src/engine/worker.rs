//! The body of a worker thread: search, attend to a subscription, run one attempt after the other, sleep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use crate::subscription::{Pace, SEARCH, Subscription, Taken, Worker, Workers, become_worker};

/// How many deliveries of a quick subscription a worker runs before it lets another subscription have its turn.
const BATCH: u32 = 64;

/// How often a worker without work looks for some.
const POLL_EVERY: Duration = Duration::from_nanos(500);
/// How long it does so before it offers its core to others in between.
const SPIN: Duration = Duration::from_micros(10);
/// Above this rate of arrival, what comes for a quick subscription may gather between two looks, ...
const GATHER_BELOW: Duration = Duration::from_micros(1);
/// ... at most so long.
const MAX_GATHER: Duration = Duration::from_micros(8);

/// What a worker takes from the pool: a subscription, with a permit.
type Token = Arc<Subscription>;

/// Runs until the pool is closed or the worker is asked to leave.
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

/// PollPace for work for a moment, unless another worker does. True if there is some.
fn search(pool: &Workers) -> bool {
    if !pool.start_search() {
        return false;
    }
    spin(|| pool.has_ready() || pool.is_closed());
    pool.end_search();
    pool.has_ready()
}

/// Spins until a condition holds, at most for `SEARCH`. It looks now and then only: each look takes a cache line from those
/// who publish.
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

/// Runs what waits for a subscription, with the permit that came with the token, until nothing is left or others wait.
fn attend(engine: &Arc<Engine>, pool: &Workers, worker: &Arc<Worker<Token>>, taken: Taken<Token>) {
    pool.attend(worker, &taken);
    let long = taken.is_long();
    let subscription = taken.token;
    let mut pace = PollPace::new();
    loop {
        if run_batches(engine, pool, worker, &subscription, long, &mut pace) == RunEnd::OthersWait {
            pool.attended(worker);
            // The permit goes with the token.
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

/// When a worker looks at the inbox of a subscription. Each look takes a cache line from those who publish, which costs them
/// more than to publish an event: when events come faster than that, it pays to let some gather.
struct PollPace {
    last: Instant,
    gather: Duration,
}

impl PollPace {
    fn new() -> Self {
        Self { last: Instant::now(), gather: Duration::ZERO }
    }

    fn found(&mut self, deliveries: usize) {
        let now = Instant::now();
        self.gather = gather(self.gather, now - self.last, deliveries);
        self.last = now;
    }

    /// Waits until it is time for the next look, or until there is something else to do.
    fn pause(&self, otherwise_busy: impl Fn() -> bool) {
        while self.last.elapsed() < self.gather && !otherwise_busy() {
            std::hint::spin_loop();
        }
    }
}

/// How long things may gather until the next look, if so many came in the time since the last one.
fn gather(before: Duration, elapsed: Duration, found: usize) -> Duration {
    let apart = elapsed / u32::try_from(found).unwrap_or(u32::MAX);
    if apart < GATHER_BELOW { (2 * before).clamp(POLL_EVERY, MAX_GATHER) } else { Duration::ZERO }
}

/// PollPace for more work of a subscription for a moment, unless another worker searches: a publisher that finds the permit
/// taken need not wake anybody. True if there is some.
fn search_here(pool: &Workers, subscription: &Subscription) -> bool {
    if !pool.start_search() {
        return subscription.has_ready();
    }
    spin(|| subscription.has_ready() || pool.has_ready() || pool.is_closed());
    pool.end_search();
    let found = subscription.has_ready();
    if found {
        // Somebody else has to see to what came for others while this worker searched.
        pool.pass_on();
    }
    found
}
