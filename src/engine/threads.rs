//! The phase of one broker, its threads, and the state of its stop. Every thread of a broker is spawned here, named,
//! counted and joined; only `run_until_signal` has a thread of its own, while it waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::base::Clock;
use crate::event::EventId;
use crate::outcome::StopReport;

/// The phase of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Subscriptions are accepted; no thread runs.
    Created = 0,
    /// Events are accepted.
    Running = 1,
    /// Events are refused; the accepted ones are handled until the deadline of the stop.
    Draining = 2,
    /// Events are refused and no call begins. Final.
    Stopped = 3,
}

/// The phase, the threads and the stop of one broker.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    pub(super) phase: AtomicU8,
    /// The deadline of the drain, in monotonic time.
    pub(super) drain_deadline: AtomicU64,
    /// `stop` has ended its drain: running calls are cancelled.
    pub(super) calls_cancelled: AtomicBool,
    threads: Mutex<Threads>,
    thread_ended: Condvar,
    pub(super) stop: Mutex<Stop>,
    /// Notified when an event is settled while draining, and when the report is complete.
    pub(super) stop_changed: Condvar,
}

/// The role of a thread, which determines when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Workers and the timer, which end first.
    Engine = 0,
    /// Bridge threads, which end after the workers.
    Bridge = 1,
    /// A stop that was requested inside a handler.
    Stop = 2,
}

#[derive(Debug, Default)]
struct Threads {
    /// The number of running threads, by role.
    alive: [usize; 3],
    handles: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
pub(super) struct Stop {
    pub(super) begun: bool,
    /// Events that were open at the end of the drain.
    pub(super) open: BTreeSet<EventId>,
    /// Events with local deliveries that were cancelled.
    pub(super) cancelled: BTreeSet<EventId>,
    /// Events with leased deliveries that were released to the back end.
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

    /// The deadline of the drain, in monotonic time. No retry runs later. `u64::MAX` before a stop.
    pub(crate) fn drain_deadline(&self) -> u64 {
        self.drain_deadline.load(Ordering::SeqCst)
    }

    /// Spawns a thread.
    ///
    /// # Errors
    /// The name of the thread, and the operating system's error.
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

    /// Notifies a draining `stop` that an event or a report to the back end is settled.
    pub(crate) fn event_settled(&self) {
        if self.phase.load(Ordering::Relaxed) == Phase::Draining as u8 {
            self.stop_changed.notify_all();
        }
    }

    /// Records an event with a delivery that the stop cancelled. A `leased` delivery is released to the back end.
    pub(crate) fn record_cancelled(&self, id: &EventId, leased: bool) {
        let mut stop = self.stop.lock();
        let ids = if leased { &mut stop.released } else { &mut stop.cancelled };
        ids.insert(id.clone());
    }
}

/// Counts a thread as ended when it is dropped, also after a panic.
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

    /// Waits until the threads of a role have ended, at most until the monotonic time `deadline`.
    pub(super) fn wait_for_end(&self, clock: &Clock, role: Role, deadline: u64) {
        let mut threads = self.threads.lock();
        while threads.alive[role as usize] > 0 && clock.wait(&self.thread_ended, &mut threads, deadline) {}
    }

    /// Joins the threads that have ended. Returns how many workers and bridge threads still run.
    pub(super) fn join(&self) -> usize {
        let mut threads = self.threads.lock();
        let handles = std::mem::take(&mut threads.handles);
        let left = threads.alive[Role::Engine as usize] + threads.alive[Role::Bridge as usize];
        drop(threads);
        let me = std::thread::current().id();
        // A thread that is counted as ended only has to return, so joining it does not block for long.
        let ended = |handle: &JoinHandle<()>| handle.is_finished() || left == 0;
        for handle in handles.into_iter().filter(|handle| handle.thread().id() != me && ended(handle)) {
            if handle.join().is_err() {
                tracing::error!("a thread of the broker panicked");
            }
        }
        left
    }
}
