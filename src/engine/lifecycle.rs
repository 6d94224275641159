//! Start and stop: Created → Running → Draining → Stopped. The only file where a broker's threads are born; each is named,
//! counted and joined. (`signals` has one of its own, for as long as somebody waits for a signal.)

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use super::threads::{Phase, Role};
use super::{Engine, timer};
use crate::outcome::{StartError, StopReport};
use crate::subscription::in_handler;

/// How long `stop` waits for threads after its deadline, and at least.
const JOIN_GRACE: u64 = 100_000_000;
/// While it drains, `stop` looks at the counts at least this often, in case it missed a signal.
const DRAIN_POLL: u64 = 5_000_000;

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
        let settled_before = self.telemetry.counters.settled();
        self.begin_draining(within);
        self.drain();
        let deadline = self.lifecycle.drain_deadline();
        let drained = self.telemetry.counters.settled().saturating_sub(settled_before);
        self.abandon_open();
        self.end();
        let grace = deadline.max(self.clock.now()).saturating_add(JOIN_GRACE);
        self.lifecycle.wait_for_end(&self.clock, Role::Engine, grace);
        // What handlers settled last is in the hands of the bridge now.
        let (mut released, mut unflushed) = (0, Vec::new());
        if let Some(bridge) = &self.bridge {
            bridge.close();
            self.lifecycle.wait_for_end(&self.clock, Role::Bridge, grace.saturating_add(JOIN_GRACE));
            (released, unflushed) = (bridge.inbound.released(), self.abandon_unsent(bridge));
        }
        self.wait_for_publishers(grace);
        let threads_left = self.lifecycle.join();
        self.router.clear();
        self.streams.clear();
        self.subscriptions.lock().close();
        let mut stop = self.lifecycle.stop.lock();
        let lost = stop.open.difference(&stop.released).chain(&stop.cancelled);
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
        self.lifecycle.lower_deadline(self.clock.deadline(within));
        let was_running = self.lifecycle.advance(Phase::Running, Phase::Draining);
        if !was_running {
            self.lifecycle.set_stopped();
        }
        // Pairs with the one of a publish that begins: it sees the phase, or the stop sees the publish.
        fence(Ordering::SeqCst);
        if let Some(bridge) = &self.bridge {
            // As in `remove`.
            bridge.inbound.wake();
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
    pub(crate) fn expedite_stop(&self) {
        self.lifecycle.lower_deadline(self.clock.now());
        self.lifecycle.stop_changed.notify_all();
    }

    /// Waits until everything that was accepted is settled and flushed, at most until the deadline.
    fn drain(self: &Arc<Self>) {
        let subscriptions = self.subscriptions.lock().all();
        let drained = || {
            self.telemetry.counters.sum(|shard| &shard.publishing) == 0
                && subscriptions.iter().all(|subscription| subscription.inbox.queued() == 0)
                && self.in_flight(self.telemetry.counters.settled()) == 0
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
        while self.telemetry.counters.sum(|shard| &shard.publishing) > 0 && self.clock.now() < deadline {
            std::thread::yield_now();
        }
    }

    /// At the deadline: notes every open event as abandoned, and cancels what has not started.
    fn abandon_open(self: &Arc<Self>) {
        self.lifecycle.set_stopped();
        let subscriptions = self.subscriptions.lock().all();
        // From here on no call begins, so none sees itself cancelled from the start.
        subscriptions.iter().for_each(|subscription| subscription.close());
        self.lifecycle.cancel_calls();
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
        self.lifecycle.set_stopped();
        self.pool.close();
        for subscription in self.subscriptions.lock().all() {
            subscription.pool.close();
        }
        self.timer.wake();
    }
}
