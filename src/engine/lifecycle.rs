//! Start and stop: Created → Running → Draining → Stopped. The only file where a broker's threads are born; each is named,
//! counted and joined. (`signals` has one of its own, for as long as somebody waits for a signal.)

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::delivery::in_handler;
use crate::engine::Engine;
use crate::error::StartError;
use crate::event::{Event, EventId};
use crate::timer;

/// How long `stop` waits for threads after its deadline, and at least.
const JOIN_GRACE: u64 = 100_000_000;
/// While it drains, `stop` looks at the counts at least this often, in case it missed a signal.
const DRAIN_POLL: u64 = 5_000_000;

/// Where in its life a broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Subscriptions can be made; nothing runs.
    Created = 0,
    /// Events are taken.
    Running = 1,
    /// No new events; what was accepted is being handled.
    Draining = 2,
    /// Nothing runs any more. Final.
    Stopped = 3,
}

/// What became of everything when the broker stopped.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct StopReport {
    /// False if stop was called on a worker thread or inside a handler: it goes on without the caller.
    pub finished: bool,
    /// Events that were completed or failed since stop began.
    pub drained: u64,
    /// Deliveries that were given back to the back end, which will deliver them again.
    pub released: u64,
    /// Events that the back end has not confirmed: held or not, nobody knows.
    pub unflushed: Vec<Event>,
    /// Events with deliveries that were cancelled or still ran at the deadline, in the order of ids.
    pub abandoned: Vec<EventId>,
    /// Threads that were still inside a handler.
    pub threads_left: usize,
}

impl StopReport {
    /// Whether everything that was accepted was handled.
    pub fn is_clean(&self) -> bool {
        self.finished && self.abandoned.is_empty() && self.unflushed.is_empty() && self.threads_left == 0
    }
}

/// The life of one broker and its threads.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: AtomicU8,
    /// Monotonic time until which it drains.
    drain_deadline: AtomicU64,
    threads: Mutex<Threads>,
    thread_ended: Condvar,
    stop: Mutex<Stop>,
    /// An event was settled while draining, or the report is there.
    stop_changed: Condvar,
}

/// What a thread does, which decides when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Workers and the timer: they end first.
    Engine = 0,
    /// They end when everything is settled.
    Bridge = 1,
    /// Stops the broker, on behalf of a handler.
    Stop = 2,
}

#[derive(Debug, Default)]
struct Threads {
    /// By role.
    alive: [usize; 3],
    handles: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    begun: bool,
    /// Events that were open at the deadline.
    open: BTreeSet<EventId>,
    /// Events with deliveries that were cancelled here.
    cancelled: BTreeSet<EventId>,
    /// Events with deliveries that went back to the back end.
    given_back: BTreeSet<EventId>,
    report: Option<StopReport>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Created as u8),
            drain_deadline: AtomicU64::new(u64::MAX),
            threads: Mutex::default(),
            thread_ended: Condvar::new(),
            stop: Mutex::default(),
            stop_changed: Condvar::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Created,
            1 => Phase::Running,
            2 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    fn advance(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Monotonic time beyond which no retry will run.
    pub(crate) fn drain_deadline(&self) -> u64 {
        self.drain_deadline.load(Ordering::SeqCst)
    }

    /// Starts a thread. On failure: its name, and what the operating system said.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        role: Role,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), (String, String)> {
        let name = format!("eventbroker:{name}");
        self.threads.lock().alive[role as usize] += 1;
        let ended = Ended(Arc::clone(self), role);
        let spawned = Builder::new().name(name.clone()).spawn(move || {
            let _ended = ended;
            body();
        });
        let handle = spawned.map_err(|error| (name, error.to_string()))?;
        let mut threads = self.threads.lock();
        threads.handles.retain(|handle| !handle.is_finished());
        threads.handles.push(handle);
        Ok(())
    }

    /// An event is settled: `stop` may wait for it.
    pub(crate) fn event_settled(&self) {
        if self.phase.load(Ordering::Relaxed) == Phase::Draining as u8 {
            self.stop_changed.notify_all();
        }
    }

    /// A delivery was cancelled because of the stop; a leased one is handled elsewhere.
    pub(crate) fn note_cancelled(&self, id: &EventId, leased: bool) {
        let mut stop = self.stop.lock();
        let ids = if leased { &mut stop.given_back } else { &mut stop.cancelled };
        ids.insert(id.clone());
    }
}

/// Counts a thread out, however it ends.
struct Ended(Arc<Lifecycle>, Role);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.threads.lock().alive[self.1 as usize] -= 1;
        self.0.thread_ended.notify_all();
    }
}

impl Engine {
    /// Starts the threads.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), StartError> {
        if !self.lifecycle.advance(Phase::Created, Phase::Running) {
            let running = self.lifecycle.phase() == Phase::Running;
            return Err(if running { StartError::AlreadyRunning } else { StartError::Stopped });
        }
        self.start_threads().map_err(|(name, reason)| {
            self.stop(Duration::ZERO);
            StartError::Thread { name, reason }
        })
    }

    fn start_threads(self: &Arc<Self>) -> Result<(), (String, String)> {
        let (engine, started) = (Arc::clone(self), self.clock.now());
        self.lifecycle.spawn(Role::Engine, "timer", move || timer::run(&engine, started))?;
        for number in 1..=self.config.worker_count {
            self.add_worker(&self.pool, &number.to_string())?;
        }
        for subscription in self.subscriptions.lock().all() {
            self.start_dedicated(&subscription)?;
        }
        self.start_bridge()
    }

    /// Stops. The first caller does it, others wait for its report; nobody waits inside a handler or on a worker thread.
    pub(crate) fn stop(self: &Arc<Self>, within: Duration) -> StopReport {
        let first = !std::mem::replace(&mut self.lifecycle.stop.lock().begun, true);
        if !in_handler() {
            return if first { self.run_stop(within) } else { self.lifecycle.wait_for_report() };
        }
        if first {
            let engine = Arc::clone(self);
            let started = self.lifecycle.spawn(Role::Stop, "stop", move || {
                engine.run_stop(within);
            });
            if started.is_err() {
                // No thread to wait on: refuse new events, and let the workers end by themselves.
                self.begin_draining(Duration::ZERO);
                self.end();
            }
        }
        self.lifecycle.stop.lock().report.clone().unwrap_or_default()
    }

    fn run_stop(self: &Arc<Self>, within: Duration) -> StopReport {
        let settled_before = self.counts.settled();
        self.begin_draining(within);
        self.drain();
        let deadline = self.lifecycle.drain_deadline();
        let drained = self.counts.settled().saturating_sub(settled_before);
        self.abandon_the_rest();
        self.end();
        let grace = deadline.max(self.clock.now()).saturating_add(JOIN_GRACE);
        self.lifecycle.wait_for_end(self, Role::Engine, grace);
        // What handlers settled last is in the hands of the bridge now.
        let (mut released, mut unflushed) = (0, Vec::new());
        if let Some(bridge) = &self.bridge {
            bridge.close();
            self.lifecycle.wait_for_end(self, Role::Bridge, grace.saturating_add(JOIN_GRACE));
            (released, unflushed) = (bridge.released(), self.give_up_the_rest(bridge));
        }
        self.wait_for_publishers(grace);
        let threads_left = self.lifecycle.join();
        self.router.clear();
        self.streams.clear();
        self.subscriptions.lock().close();
        let mut stop = self.lifecycle.stop.lock();
        let lost = stop.open.difference(&stop.given_back).chain(&stop.cancelled);
        let abandoned = lost.cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let report = StopReport { finished: true, drained, released, unflushed, abandoned, threads_left };
        stop.report = Some(report.clone());
        drop(stop);
        self.lifecycle.stop_changed.notify_all();
        report
    }

    /// Refuses new events, gives blocked publishers theirs back, and gives up retries that come too late.
    fn begin_draining(self: &Arc<Self>, within: Duration) {
        // The end may have been hastened already.
        self.lifecycle.drain_deadline.fetch_min(self.clock.deadline(within), Ordering::SeqCst);
        let was_running = self.lifecycle.advance(Phase::Running, Phase::Draining);
        if !was_running {
            self.lifecycle.phase.store(Phase::Stopped as u8, Ordering::SeqCst);
        }
        // Pairs with the one of a publish that begins: it sees the phase, or the stop sees the publish.
        fence(Ordering::SeqCst);
        if let Some(bridge) = &self.bridge {
            // As in `remove`.
            bridge.ring();
        }
        for subscription in self.subscriptions.lock().all() {
            if subscription.is_paused() {
                // What waits for it would hold up the stop to its deadline.
                subscription.close();
                self.cancel_all(&subscription);
            }
            subscription.inbox.wake_publishers();
        }
        self.cancel_overdue();
    }

    /// Brings the deadline of a stop forward to now.
    #[cfg(feature = "signals")]
    pub(crate) fn hasten_stop(&self) {
        self.lifecycle.drain_deadline.fetch_min(self.clock.now(), Ordering::SeqCst);
        self.lifecycle.stop_changed.notify_all();
    }

    /// Waits until everything that was accepted is settled and flushed, at most until the deadline.
    fn drain(self: &Arc<Self>) {
        let subscriptions = self.subscriptions.lock().all();
        let drained = || {
            self.counts.sum(|shard| &shard.publishing) == 0
                && subscriptions.iter().all(|subscription| subscription.inbox.queued() == 0)
                && self.in_flight(self.counts.settled()) == 0
                && self.bridge.as_ref().is_none_or(|bridge| bridge.is_flushed())
        };
        let mut stop = self.lifecycle.stop.lock();
        while !drained() {
            let (now, deadline) = (self.clock.now(), self.lifecycle.drain_deadline());
            if now >= deadline {
                break;
            }
            let poll = now.saturating_add(DRAIN_POLL).min(deadline);
            self.clock.wait(&self.lifecycle.stop_changed, &mut stop, poll);
        }
    }

    /// Publishers that entered before the stop wait for nothing any more; what they have put in by now was cancelled.
    fn wait_for_publishers(&self, deadline: u64) {
        while self.counts.sum(|shard| &shard.publishing) > 0 && self.clock.now() < deadline {
            std::thread::yield_now();
        }
    }

    /// At the deadline: notes every open event as abandoned, and cancels what has not started.
    fn abandon_the_rest(self: &Arc<Self>) {
        self.lifecycle.phase.store(Phase::Stopped as u8, Ordering::SeqCst);
        let subscriptions = self.subscriptions.lock().all();
        // From here on no call begins, so none sees itself cancelled from the start.
        subscriptions.iter().for_each(|subscription| subscription.close());
        self.calls_cancelled.store(true, Ordering::SeqCst);
        let mut open = BTreeSet::new();
        self.store.for_each(|record| {
            if record.progress().is_open() {
                open.insert(record.event.id().clone());
            }
        });
        self.lifecycle.stop.lock().open = open;
        for subscription in &subscriptions {
            self.cancel_all(subscription);
        }
    }

    /// Lets every thread end.
    fn end(&self) {
        self.lifecycle.phase.store(Phase::Stopped as u8, Ordering::SeqCst);
        self.pool.close();
        for subscription in self.subscriptions.lock().all() {
            subscription.pool.close();
        }
        self.timer.wake();
    }
}

impl Lifecycle {
    fn wait_for_report(&self) -> StopReport {
        let mut stop = self.stop.lock();
        loop {
            match &stop.report {
                Some(report) => return report.clone(),
                None => self.stop_changed.wait(&mut stop),
            }
        }
    }

    /// Waits until the threads of a role have ended, at most until `deadline`.
    fn wait_for_end(&self, engine: &Engine, role: Role, deadline: u64) {
        let mut threads = self.threads.lock();
        while threads.alive[role as usize] > 0 && engine.clock.wait(&self.thread_ended, &mut threads, deadline) {}
    }

    /// Joins the threads that have ended. Returns how many have not.
    fn join(&self) -> usize {
        let mut threads = self.threads.lock();
        let handles = std::mem::take(&mut threads.handles);
        let left = threads.alive[Role::Engine as usize] + threads.alive[Role::Bridge as usize];
        drop(threads);
        let me = std::thread::current().id();
        // A thread that is counted out has nothing left to do but to return.
        let ended = |handle: &JoinHandle<()>| handle.is_finished() || left == 0;
        for handle in handles.into_iter().filter(|handle| handle.thread().id() != me && ended(handle)) {
            if handle.join().is_err() {
                tracing::error!("a thread of the broker panicked");
            }
        }
        left
    }
}
