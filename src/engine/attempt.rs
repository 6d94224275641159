//! The body of a worker thread: search, attend to a subscription, run one attempt after the other, sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::delivery::{CallScope, Delivery, become_worker};
use crate::engine::Engine;
use crate::event::Status;
use crate::handler::{Outcome, guarded};
use crate::inbox::Queued;
use crate::pool::{Pace, SEARCH, Taken, Worker};
use crate::subscription::{State, Subscription, Workers};
use crate::trace;

/// How many deliveries of a quick subscription a worker runs before it lets another subscription have its turn.
const TURN: u32 = 64;

/// How often a worker without work looks for some.
const LOOK_EVERY: Duration = Duration::from_nanos(500);
/// How long it does so before it offers its core to others in between.
const SPIN: Duration = Duration::from_micros(10);
/// Above this rate of arrival, what comes for a quick subscription may gather between two looks, ...
const GATHER_BELOW: Duration = Duration::from_micros(1);
/// ... at most so long.
const MAX_GATHER: Duration = Duration::from_micros(8);

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

/// Spins until a condition holds, at most for `SEARCH`. It looks now and then only: each look takes a cache line from those
/// who publish.
fn spin(until: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !until() {
        let looked = started.elapsed();
        if looked >= SEARCH {
            return false;
        }
        if looked > SPIN {
            std::thread::yield_now();
        }
        while started.elapsed() < looked + LOOK_EVERY {
            std::hint::spin_loop();
        }
    }
    true
}

/// Runs what waits for a subscription, with the seat that came with the token, until nothing is left or others wait.
fn attend(engine: &Arc<Engine>, pool: &Workers, worker: &Arc<Worker<Token>>, taken: Taken<Token>) {
    pool.attend(worker, &taken);
    let long = taken.is_long();
    let subscription = taken.token;
    let mut looks = Looks::new();
    loop {
        if run_turns(engine, pool, worker, &subscription, long, &mut looks) == Turn::OthersWait {
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

fn run_turns(
    engine: &Arc<Engine>,
    pool: &Workers,
    worker: &Worker<Token>,
    subscription: &Token,
    long: bool,
    looks: &mut Looks,
) -> Turn {
    let mut now = engine.clock.now();
    let mut left = TURN;
    while !pool.is_closed() {
        let found = subscription.inbox.ready_len();
        if found == 0 || subscription.is_paused() {
            break;
        }
        looks.found(found);
        for _ in 0..found {
            if pool.is_closed() || subscription.is_paused() {
                break;
            }
            let Some(delivery) = subscription.inbox.pop() else { break };
            if subscription.pace() != Pace::Quick && subscription.has_ready() {
                engine.call_worker(subscription);
            }
            worker.begin_call();
            now = engine.attempt(subscription, delivery, now);
            worker.end_call();
            left -= 1;
            if left == 0 || long || subscription.pace() == Pace::Long {
                if (long || pool.has_ready()) && subscription.has_ready() {
                    return Turn::OthersWait;
                }
                left = TURN;
            }
        }
        looks.pause(|| pool.has_ready() || pool.is_closed());
    }
    Turn::NothingLeft
}

/// When a worker looks at the inbox of a subscription. Each look takes a cache line from those who publish, which costs them
/// more than to publish an event: when events come faster than that, it pays to let some gather.
struct Looks {
    last: Instant,
    gather: Duration,
}

impl Looks {
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
    if apart < GATHER_BELOW { (2 * before).clamp(LOOK_EVERY, MAX_GATHER) } else { Duration::ZERO }
}

/// Looks for more work of a subscription for a moment, unless another worker searches: a publisher that finds the seat
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

impl Engine {
    /// Runs one attempt and settles it. The caller holds a seat. `now` is a recent monotonic time; returns a later one.
    pub(crate) fn attempt(self: &Arc<Self>, subscription: &Arc<Subscription>, delivery: Queued, now: u64) -> u64 {
        let Some(held) = delivery.lease() else { return self.run(subscription, delivery, now) };
        let held = Arc::clone(held);
        // Whether the lease still holds is not to be judged by a time from before this process was frozen.
        let now = self.clock.now();
        let Some((delivery, call)) = self.approach(subscription, delivery, held, now) else { return self.clock.now() };
        let ended = self.run(subscription, delivery, now);
        drop(call);
        ended
    }

    fn run(self: &Arc<Self>, subscription: &Arc<Subscription>, mut delivery: Queued, now: u64) -> u64 {
        match subscription.begin_call() {
            State::Open => {}
            State::Paused if delivery.lease().is_none() => {
                subscription.inbox.push_due(delivery);
                // It may have been resumed meanwhile.
                self.after_push(subscription);
                return now;
            }
            State::Paused | State::Closed => {
                self.cancel(subscription, delivery);
                return now;
            }
        }
        subscription.inbox.leave(&mut delivery);
        let leased = delivery.lease().is_some();
        if leased && let Some(bridge) = &self.bridge {
            bridge.made_room(subscription);
        }
        delivery.attempts += 1;
        let counts = self.counts.here();
        counts.attempts.add_one();
        if delivery.attempts > 1 {
            counts.retries.add_one();
            subscription.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        let first = delivery.record.start_attempt(delivery.attempts, self.clock.wall(now));
        if first
            && !leased
            && let Some(bridge) = &self.bridge
        {
            bridge.note_status(&delivery.record, Status::Processing, None);
        }
        // Until the attempt is settled: whoever is called meanwhile must not wait for it.
        let callers = delivery.record.watch().map_or(&[][..], |watch| &watch.callers);
        let scope = CallScope::enter(self.number, subscription.id.0, callers);
        let span = trace::processing(self, subscription, &delivery);
        let outcome = self.call(subscription, &delivery, now);
        span.note(&outcome);
        let ended = self.clock.now();
        subscription.note_call(ended - now);
        self.settle(subscription, delivery, Attempt { outcome, ended });
        drop(span);
        drop(scope);
        subscription.end_call();
        ended
    }

    /// Calls the handler. A panic is a failed attempt.
    fn call(self: &Arc<Self>, subscription: &Arc<Subscription>, delivery: &Queued, started: u64) -> Outcome {
        let record = &delivery.record;
        let attempt = delivery.attempts;
        let lease = delivery.lease().map(|held| &**held);
        let view = Delivery { engine: self, subscription, event: &record.event, attempt, lease, started };
        guarded(|| (subscription.handler)(&view)).unwrap_or_else(|panic| Outcome::Retry(format!("handler {panic}")))
    }
}
