//! The life of one broker and its threads: the phase, the threads that are alive, the stop that is under way. Threads of a broker are
//! born here only; each is named, counted and joined.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::base::Clock;
use crate::event::EventId;
use crate::outcome::StopReport;

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

/// The life of one broker and its threads.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: AtomicU8,
    /// Monotonic time until which it drains.
    drain_deadline: AtomicU64,
    /// `stop` has reached its deadline: calls that still run are not waited for.
    calls_cancelled: AtomicBool,
    threads: Mutex<Threads>,
    thread_ended: Condvar,
    pub(super) stop: Mutex<Stop>,
    /// An event was settled while draining, or the report is there.
    pub(super) stop_changed: Condvar,
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
pub(super) struct Stop {
    pub(super) begun: bool,
    /// Events that were open at the deadline.
    pub(super) open: BTreeSet<EventId>,
    /// Events with deliveries that were cancelled here.
    pub(super) cancelled: BTreeSet<EventId>,
    /// Events with deliveries that went back to the back end.
    pub(super) released: BTreeSet<EventId>,
    pub(super) report: Option<StopReport>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Created as u8),
            drain_deadline: AtomicU64::new(u64::MAX),
            calls_cancelled: AtomicBool::new(false),
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

    pub(super) fn advance(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Monotonic time beyond which no retry will run.
    pub(crate) fn drain_deadline(&self) -> u64 {
        self.drain_deadline.load(Ordering::SeqCst)
    }

    /// Lowers the deadline of the drain, if `deadline` is earlier.
    pub(super) fn lower_deadline(&self, deadline: u64) {
        self.drain_deadline.fetch_min(deadline, Ordering::SeqCst);
    }

    /// The broker has stopped, from whatever phase.
    pub(super) fn set_stopped(&self) {
        self.phase.store(Phase::Stopped as u8, Ordering::SeqCst);
    }

    /// Calls that still run see [`Delivery::cancelled`](crate::Delivery::cancelled) from now on.
    pub(super) fn cancel_calls(&self) {
        self.calls_cancelled.store(true, Ordering::SeqCst);
    }

    pub(super) fn calls_cancelled(&self) -> &AtomicBool {
        &self.calls_cancelled
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
    pub(crate) fn record_cancelled(&self, id: &EventId, leased: bool) {
        let mut stop = self.stop.lock();
        let ids = if leased { &mut stop.released } else { &mut stop.cancelled };
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

impl Lifecycle {
    pub(super) fn wait_for_report(&self) -> StopReport {
        let mut stop = self.stop.lock();
        loop {
            match &stop.report {
                Some(report) => return report.clone(),
                None => self.stop_changed.wait(&mut stop),
            }
        }
    }

    /// Waits until the threads of a role have ended, at most until `deadline`.
    pub(super) fn wait_for_end(&self, clock: &Clock, role: Role, deadline: u64) {
        let mut threads = self.threads.lock();
        while threads.alive[role as usize] > 0 && clock.wait(&self.thread_ended, &mut threads, deadline) {}
    }

    /// Joins the threads that have ended. Returns how many have not.
    pub(super) fn join(&self) -> usize {
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
