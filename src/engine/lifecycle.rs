//! Start and stop: Created → Running → Draining → Stopped. `threads` spawns and joins the threads.
//!
//! A stop refuses new events ([`begin_draining`](Engine::begin_draining)), waits until everything accepted is settled
//! ([`drain`](Engine::drain)), cancels at the deadline what is still open ([`abandon_open`](Engine::abandon_open)), and
//! ends the threads, workers first, then the bridge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use super::threads::{Phase, Role};
use super::{Engine, timer};
use crate::outcome::{StartError, StopReport};
use crate::subscription::in_handler;

/// How long beyond its deadline `stop` waits for the workers, and then for the bridge threads, in nanoseconds.
const JOIN_GRACE: u64 = 100_000_000;
/// Time between two checks of the counts while `stop` drains, in case it misses a notification, in nanoseconds.
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

    /// Stops the broker. The first caller runs the stop; others wait for its report. Inside a handler or on a worker
    /// thread the stop gets a thread of its own, and the call returns at once.
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
                // The stop gets no thread: refuse new events, and let the workers end without being joined.
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
        // The workers' last settlements are queued at the bridge, so it can close.
        let (mut released, mut unflushed) = (0, Vec::new());
        if let Some(bridge) = &self.bridge {
            bridge.close();
            self.lifecycle.wait_for_end(&self.clock, Role::Bridge, grace.saturating_add(JOIN_GRACE));
            (released, unflushed) = (bridge.inbound.released.load(Ordering::SeqCst), self.abandon_unsent(bridge));
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

    /// Refuses new events, wakes blocked publishers, and cancels retries that are due after the deadline.
    fn begin_draining(self: &Arc<Self>, within: Duration) {
        // `expedite_stop` may have lowered the deadline already, so this only lowers it.
        self.lifecycle.drain_deadline.fetch_min(self.clock.deadline(within), Ordering::SeqCst);
        let was_running = self.lifecycle.advance(Phase::Running, Phase::Draining);
        if !was_running {
            self.lifecycle.phase.store(Phase::Stopped as u8, Ordering::SeqCst);
        }
        // Between this exchange of the phase and the load of `publishing` in `drain`. Pairs with the fences of `admit`
        // and `enter_internal`, between the publisher's store of `publishing` and its load of the phase: one sees the
        // other's write.
        fence(Ordering::SeqCst);
        if let Some(bridge) = &self.bridge {
            // Before leases are released, so that the ingest does not receive these deliveries again.
            bridge.inbound.wake();
        }
        for subscription in self.subscriptions.lock().all() {
            if subscription.is_paused() {
                // Its backlog would keep the stop draining until the deadline.
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
        self.lifecycle.drain_deadline.fetch_min(self.clock.now(), Ordering::SeqCst);
        self.lifecycle.stop_changed.notify_all();
    }

    /// Waits, at most until the deadline, until no publish is under way, no delivery holds a place, no event is in
    /// flight, and the bridge is flushed.
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

    /// Waits for publishes that entered before the stop. None blocks any more; a delivery enqueued now is cancelled.
    fn wait_for_publishers(&self, deadline: u64) {
        while self.telemetry.counters.sum(|shard| &shard.publishing) > 0 && self.clock.now() < deadline {
            std::thread::yield_now();
        }
    }

    /// Collects the ids of all open events from the store, for the report, and cancels the deliveries without a call.
    fn abandon_open(self: &Arc<Self>) {
        self.lifecycle.phase.store(Phase::Stopped as u8, Ordering::SeqCst);
        let subscriptions = self.subscriptions.lock().all();
        // First, so that no call begins with its cancel flag already set.
        subscriptions.iter().for_each(|subscription| subscription.close());
        self.lifecycle.calls_cancelled.store(true, Ordering::SeqCst);
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
