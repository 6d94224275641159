//! A pool of worker threads: the tokens that are ready to be attended, and the workers that search, run or sleep.
//!
//! A wake-up costs more than a thousand events, so the rule is: wake a worker only when none is searching. At most one
//! worker searches, for [`SEARCH`], before it sleeps; the one that slept last is woken first. Tokens of subscriptions whose handlers
//! are long go through a queue of their own and may not take the whole pool. What a token stands for is not known here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

/// How long a worker that has nothing to do searches before it sleeps.
pub(crate) const SEARCH: Duration = Duration::from_micros(30);
/// Every so many takes, the queue of long handlers goes first.
const LONG_FIRST_EVERY: u64 = 64;

/// How long the handler of a subscription takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Pace {
    /// Not worth a second thread unless there is a backlog.
    Quick = 0,
    /// Worth a thread for each delivery.
    Slow = 1,
    /// Must not take all threads of the pool.
    Long = 2,
}

/// What the pool has to know of a token.
pub(crate) trait Paced {
    fn pace(&self) -> Pace;
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    ready: SegQueue<T>,
    ready_long: SegQueue<T>,
    searching: CachePadded<AtomicBool>,
    takes: AtomicU64,
    /// Workers that run a token of the long queue, and how many may.
    long_running: AtomicUsize,
    long_limit: usize,
    sleepers: Mutex<Vec<Arc<Worker<T>>>>,
    sleeping: AtomicUsize,
    workers: Mutex<Vec<Arc<Worker<T>>>>,
    opened: AtomicBool,
    closed: AtomicBool,
}

/// One worker thread, as others see it.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    /// Grows when a call begins and when it ends, so it is odd inside a call. Written by the worker alone.
    calls: CachePadded<AtomicU64>,
    /// The token that it attends to.
    attending: Mutex<Option<T>>,
    /// It counts among those that run long handlers.
    long: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
    woken: AtomicBool,
    leave: AtomicBool,
    /// Monotonic time at which it went to sleep.
    asleep_since: AtomicU64,
}

/// A token taken from the pool.
#[derive(Debug)]
pub(crate) struct Taken<T> {
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

    /// Called by the worker's thread before anything else.
    pub(crate) fn begin(&self) {
        self.thread.get_or_init(std::thread::current);
    }

    /// A call of a handler begins.
    pub(crate) fn begin_call(&self) {
        self.calls.store(self.calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// It has ended.
    pub(crate) fn end_call(&self) {
        self.begin_call();
    }

    /// Calls begun plus calls ended: odd inside of a call, and different for each.
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
    /// `long_limit` bounds how many workers serve long handlers at a time.
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

    /// True for the caller that is to start the workers.
    pub(crate) fn open(&self) -> bool {
        !self.opened.swap(true, Ordering::AcqRel)
    }

    /// Offers a token to the workers. False if all of them are busy: it waits for the first that is done.
    pub(crate) fn submit(&self, token: T) -> bool {
        if token.pace() == Pace::Long {
            self.ready_long.push(token);
        } else {
            self.ready.push(token);
        }
        // Pairs with the fence of a worker that stops searching: it sees the token, or this sees that it stopped.
        fence(Ordering::SeqCst);
        if self.is_closed() {
            // Nobody will take it, and it must not keep alive what it stands for.
            self.clear();
        }
        self.searching.load(Ordering::Relaxed) || self.wake_one()
    }

    /// Tokens that wait for a worker, long handlers aside.
    pub(crate) fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Tokens that wait for a worker and may be taken.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
            || !self.ready_long.is_empty() && self.long_running.load(Ordering::Relaxed) < self.long_limit
    }

    /// Takes a token without waiting.
    pub(crate) fn take(&self) -> Option<Taken<T>> {
        let long_first =
            !self.ready_long.is_empty() && self.takes.fetch_add(1, Ordering::Relaxed).is_multiple_of(LONG_FIRST_EVERY);
        if long_first && let Some(taken) = self.take_long() {
            return Some(taken);
        }
        while let Some(token) = self.ready.pop() {
            if token.pace() != Pace::Long {
                return Some(Taken { token, long: false });
            }
            // It turned out to be long while it waited here.
            self.ready_long.push(token);
        }
        self.take_long()
    }

    /// Takes a certain token off the queues, if no worker has taken it. Those before it go to the end.
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

    fn take_long(&self) -> Option<Taken<T>> {
        if self.ready_long.is_empty() {
            return None;
        }
        if self.long_running.fetch_add(1, Ordering::AcqRel) < self.long_limit
            && let Some(token) = self.ready_long.pop()
        {
            return Some(Taken { token, long: true });
        }
        self.long_running.fetch_sub(1, Ordering::AcqRel);
        None
    }

    /// A worker attends to a taken token.
    pub(crate) fn attend(&self, worker: &Worker<T>, taken: &Taken<T>) {
        worker.long.store(taken.long, Ordering::Release);
        *worker.attending.lock() = Some(taken.token.clone());
    }

    /// A worker turns out to run a long handler. Returns the token that it attends to.
    pub(crate) fn note_long(&self, worker: &Worker<T>) -> Option<T> {
        let attending = worker.attending.lock();
        if attending.is_some() && !worker.long.swap(true, Ordering::AcqRel) {
            self.long_running.fetch_add(1, Ordering::AcqRel);
        }
        attending.clone()
    }

    /// A worker has attended to its token.
    pub(crate) fn attended(&self, worker: &Worker<T>) {
        let token = worker.attending.lock().take();
        if worker.long.swap(false, Ordering::AcqRel) {
            self.long_running.fetch_sub(1, Ordering::AcqRel);
        }
        drop(token);
    }

    /// Makes the caller the one that searches. False if another one does.
    pub(crate) fn start_search(&self) -> bool {
        !self.searching.load(Ordering::Relaxed) && !self.searching.swap(true, Ordering::AcqRel)
    }

    /// The caller stops searching; whatever it looks at after this call was not missed by anyone.
    pub(crate) fn end_search(&self) {
        self.searching.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Wakes a worker for what is left, if nobody searches for it.
    pub(crate) fn pass_on(&self) {
        if self.sleeping.load(Ordering::Relaxed) > 0 && self.has_ready() && !self.searching.load(Ordering::Relaxed) {
            self.wake_one();
        }
    }

    /// Sleeps until there may be something to do. False when the worker should end.
    pub(crate) fn sleep(&self, worker: &Arc<Worker<T>>, now: u64) -> bool {
        {
            let mut sleepers = self.sleepers.lock();
            // Under the lock, like its counterpart in `wake_one`: a wake-up that is late belongs to no later sleep.
            worker.woken.store(false, Ordering::Relaxed);
            worker.asleep_since.store(now, Ordering::Relaxed);
            sleepers.push(Arc::clone(worker));
            self.sleeping.store(sleepers.len(), Ordering::Relaxed);
        }
        // Pairs with the fence in `submit`: it sees the sleeper, or this sees the token.
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

    /// Lets the worker end that has slept the longest, if it slept since `since` or before and more than `keep` would be
    /// left. Returns whether one ends.
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
        // Now, not when its thread has ended: the next look must not count it.
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

    /// All workers end as soon as they are outside of handlers.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.clear();
        while self.wake_one() {}
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Forgets what is ready.
    fn clear(&self) {
        while self.ready.pop().is_some() || self.ready_long.pop().is_some() {}
    }
}

impl<T> Taken<T> {
    pub(crate) fn is_long(&self) -> bool {
        self.long
    }
}
