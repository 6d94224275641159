//! A pool of worker threads: the tokens that wait for a worker, and the workers that search, run or sleep.
//!
//! A wake-up costs more than a thousand events, so a worker is woken only if none is searching. At most one worker
//! searches, for at most [`SEARCH`], before it sleeps; the worker that fell asleep last is woken first. Tokens with
//! long handlers go through a queue of their own and may not take the whole pool. A token stands for a subscription.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

/// How long a worker without a token searches before it sleeps.
pub(crate) const SEARCH: Duration = Duration::from_micros(30);
/// The queue of long handlers goes first once in this many takes.
const LONG_FIRST_EVERY: u64 = 64;

/// The length of a handler's calls, in classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Pace {
    /// Not worth a second worker unless there is a backlog.
    Quick = 0,
    /// Worth a worker for each delivery.
    Slow = 1,
    /// Must not take all workers of the pool.
    Long = 2,
}

/// A token with the pace of its handler.
pub(crate) trait Paced {
    fn pace(&self) -> Pace;
}

/// The workers of one pool, and the tokens that wait for them.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    ready: SegQueue<T>,
    ready_long: SegQueue<T>,
    searching: CachePadded<AtomicBool>,
    takes: AtomicU64,
    /// Workers that attend to a token with a long handler, and their bound.
    long_running: AtomicUsize,
    long_limit: usize,
    sleepers: Mutex<Vec<Arc<Worker<T>>>>,
    sleeping: AtomicUsize,
    workers: Mutex<Vec<Arc<Worker<T>>>>,
    opened: AtomicBool,
    closed: AtomicBool,
}

/// The state of one worker that other threads can read.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    /// Grows by one when a call begins and when it ends, so it is odd inside a call. Written by the worker alone.
    calls: CachePadded<AtomicU64>,
    attending: Mutex<Option<T>>,
    /// The worker is counted in `long_running`.
    long: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
    woken: AtomicBool,
    leave: AtomicBool,
    /// Monotonic time at which the worker went to sleep.
    asleep_since: AtomicU64,
}

/// A token taken from the pool.
#[derive(Debug)]
pub(crate) struct TakenToken<T> {
    pub(crate) token: T,
    long: bool,
}

impl<T: Clone> Worker<T> {
    pub(crate) fn new() -> Self {
        Self {
            calls: CachePadded::default(),
            attending: Mutex::new(None),
            long: AtomicBool::new(false),
            thread: std::sync::OnceLock::new(),
            woken: AtomicBool::new(false),
            leave: AtomicBool::new(false),
            asleep_since: AtomicU64::new(0),
        }
    }

    /// Sets the worker's thread. Called by that thread first of all.
    pub(crate) fn begin(&self) {
        self.thread.get_or_init(std::thread::current);
    }

    pub(crate) fn begin_call(&self) {
        self.calls.store(self.calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn end_call(&self) {
        self.calls.store(self.calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Calls begun plus calls ended: odd inside a call, and a different number for each call.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn attending(&self) -> Option<T> {
        self.attending.lock().clone()
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl<T: Clone + Paced> Pool<T> {
    /// At most `long_limit` workers serve long handlers at a time.
    pub(crate) fn new(long_limit: usize) -> Self {
        Self {
            ready: SegQueue::new(),
            ready_long: SegQueue::new(),
            searching: CachePadded::default(),
            takes: AtomicU64::new(0),
            long_running: AtomicUsize::new(0),
            long_limit,
            sleepers: Mutex::new(Vec::new()),
            sleeping: AtomicUsize::new(0),
            workers: Mutex::new(Vec::new()),
            opened: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Opens the pool. True for the first caller, which has to start the workers.
    pub(crate) fn open(&self) -> bool {
        !self.opened.swap(true, Ordering::AcqRel)
    }

    /// Queues a token and wakes a worker, unless one searches. False if all workers are busy, so that the token waits.
    pub(crate) fn submit(&self, token: T) -> bool {
        if token.pace() == Pace::Long {
            self.ready_long.push(token);
        } else {
            self.ready.push(token);
        }
        // Pairs with the fences in `end_search`, `sleep` and `close`. This thread pushes the token, then reads
        // `searching`, `sleeping` and `closed`. A worker writes `searching` or `sleeping`, and `close` writes `closed`,
        // and then reads the queues. So the other thread sees the token, or this one sees that write.
        fence(Ordering::SeqCst);
        if self.is_closed() {
            // No worker will take the token, which must not keep its subscription alive.
            self.clear();
        }
        self.searching.load(Ordering::Relaxed) || self.wake_one()
    }

    /// Number of tokens that wait for a worker, without those of long handlers.
    pub(crate) fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Whether a token waits for a worker and may be taken.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
            || !self.ready_long.is_empty() && self.long_running.load(Ordering::Relaxed) < self.long_limit
    }

    /// Takes a token without waiting.
    pub(crate) fn take(&self) -> Option<TakenToken<T>> {
        let long_first =
            !self.ready_long.is_empty() && self.takes.fetch_add(1, Ordering::Relaxed).is_multiple_of(LONG_FIRST_EVERY);
        if long_first && let Some(taken) = self.take_long() {
            return Some(taken);
        }
        while let Some(token) = self.ready.pop() {
            if token.pace() != Pace::Long {
                return Some(TakenToken { token, long: false });
            }
            // The pace became long while the token waited here.
            self.ready_long.push(token);
        }
        self.take_long()
    }

    /// Removes a token that matches from the queues. False if a worker has taken it. Tokens before it move to the end.
    pub(crate) fn take_back(&self, is_it: impl Fn(&T) -> bool) -> bool {
        [&self.ready, &self.ready_long].into_iter().any(|queue| {
            (0..queue.len()).map_while(|_| queue.pop()).any(|token| {
                let found = is_it(&token);
                if !found {
                    queue.push(token);
                }
                found
            })
        })
    }

    fn take_long(&self) -> Option<TakenToken<T>> {
        if self.ready_long.is_empty() {
            return None;
        }
        if self.long_running.fetch_add(1, Ordering::AcqRel) < self.long_limit
            && let Some(token) = self.ready_long.pop()
        {
            return Some(TakenToken { token, long: true });
        }
        self.long_running.fetch_sub(1, Ordering::AcqRel);
        None
    }

    pub(crate) fn attend(&self, worker: &Worker<T>, taken: &TakenToken<T>) {
        worker.long.store(taken.long, Ordering::Release);
        *worker.attending.lock() = Some(taken.token.clone());
    }

    /// Counts a worker as one with a long handler. Returns the token that it attends to.
    pub(crate) fn note_long(&self, worker: &Worker<T>) -> Option<T> {
        let attending = worker.attending.lock();
        if attending.is_some() && !worker.long.swap(true, Ordering::AcqRel) {
            self.long_running.fetch_add(1, Ordering::AcqRel);
        }
        attending.clone()
    }

    /// Notes that a worker no longer attends to its token.
    pub(crate) fn attended(&self, worker: &Worker<T>) {
        let token = worker.attending.lock().take();
        if worker.long.swap(false, Ordering::AcqRel) {
            self.long_running.fetch_sub(1, Ordering::AcqRel);
        }
        drop(token);
    }

    /// Makes the caller the searching worker. False if another worker searches.
    pub(crate) fn start_search(&self) -> bool {
        !self.searching.load(Ordering::Relaxed) && !self.searching.swap(true, Ordering::AcqRel)
    }

    /// Ends the search. The caller has to check the queues once more after this call.
    pub(crate) fn end_search(&self) {
        self.searching.store(false, Ordering::Relaxed);
        // Pairs with the fence in `submit`: the caller's last check sees the token, or `submit` sees the search ended.
        fence(Ordering::SeqCst);
    }

    /// Wakes a worker for tokens that are left in the queues, unless one searches.
    pub(crate) fn pass_on(&self) {
        if self.sleeping.load(Ordering::Relaxed) > 0 && self.has_ready() && !self.searching.load(Ordering::Relaxed) {
            self.wake_one();
        }
    }

    /// Sleeps until a token may be ready. False when the worker has to end.
    pub(crate) fn sleep(&self, worker: &Arc<Worker<T>>, now: u64) -> bool {
        {
            let mut sleepers = self.sleepers.lock();
            // Reset under the lock under which `wake_one` sets it, so a late wake-up ends no later sleep.
            worker.woken.store(false, Ordering::Relaxed);
            worker.asleep_since.store(now, Ordering::Relaxed);
            sleepers.push(Arc::clone(worker));
            self.sleeping.store(sleepers.len(), Ordering::Relaxed);
        }
        // Pairs with the fences in `submit` and `close`: this sees the token or `closed`, or they see `sleeping`.
        fence(Ordering::SeqCst);
        if self.has_ready() || self.closed.load(Ordering::SeqCst) {
            self.take_sleeper(worker);
        } else {
            while !worker.woken.load(Ordering::Acquire) {
                std::thread::park();
            }
        }
        !self.closed.load(Ordering::SeqCst) && !worker.leave.load(Ordering::Relaxed)
    }

    /// Takes a worker off the list of sleepers, unless it was woken already.
    fn take_sleeper(&self, worker: &Arc<Worker<T>>) {
        let mut sleepers = self.sleepers.lock();
        sleepers.retain(|sleeper| !Arc::ptr_eq(sleeper, worker));
        self.sleeping.store(sleepers.len(), Ordering::Relaxed);
    }

    fn wake_one(&self) -> bool {
        if self.sleeping.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let sleeper = {
            let mut sleepers = self.sleepers.lock();
            let sleeper = sleepers.pop().inspect(|worker| worker.woken.store(true, Ordering::Release));
            self.sleeping.store(sleepers.len(), Ordering::Relaxed);
            sleeper
        };
        sleeper.inspect(|worker| worker.unpark()).is_some()
    }

    /// Ends the worker that has slept longest, if it has slept since `since` and there are more than `keep`.
    pub(crate) fn shrink(&self, keep: usize, since: u64) -> bool {
        let mut workers = self.workers.lock();
        if workers.len() <= keep {
            return false;
        }
        let leaver = {
            let mut sleepers = self.sleepers.lock();
            let oldest = sleepers.first().is_some_and(|it| it.asleep_since.load(Ordering::Relaxed) <= since);
            let leaver = if oldest { Some(sleepers.remove(0)) } else { None };
            self.sleeping.store(sleepers.len(), Ordering::Relaxed);
            leaver
        };
        let Some(leaver) = leaver else { return false };
        leaver.leave.store(true, Ordering::Relaxed);
        leaver.woken.store(true, Ordering::Release);
        // Removed now, not when its thread has ended: the next call must not count it.
        workers.retain(|it| !Arc::ptr_eq(it, &leaver));
        drop(workers);
        leaver.unpark();
        true
    }

    pub(crate) fn add_worker(&self, worker: Arc<Worker<T>>) {
        self.workers.lock().push(worker);
    }

    pub(crate) fn remove_worker(&self, worker: &Arc<Worker<T>>) {
        self.workers.lock().retain(|it| !Arc::ptr_eq(it, worker));
    }

    pub(crate) fn workers(&self) -> Vec<Arc<Worker<T>>> {
        self.workers.lock().clone()
    }

    /// Closes the pool: each worker ends as soon as it is outside a handler.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Pairs with the fences in `submit` and `sleep`: this sees the token or `sleeping`, or they see `closed`.
        fence(Ordering::SeqCst);
        self.clear();
        while self.wake_one() {}
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        while self.ready.pop().is_some() || self.ready_long.pop().is_some() {}
    }
}

impl<T> TakenToken<T> {
    pub(crate) fn is_long(&self) -> bool {
        self.long
    }
}
