//! The settling thread: registers subscriptions, settles leases in batches, extends held leases, sends heartbeats.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ingest_thread::POLL_WAIT;
use super::pauses::Pauses;
use crate::base::nanos;
use crate::bridge::{Bridge, Command};
use crate::engine::Engine;
use crate::outcome::BackendError;
use crate::provider::{LeaseToken, Settlement, Settler};
use crate::subscription::{become_worker, guarded};

/// The most settlements per call.
const MAX_SETTLE: usize = 256;

/// The state of the settling thread.
struct Settling {
    settler: Box<dyn Settler>,
    lease_time: Option<u64>,
    /// When the next heartbeat is due, also without leases to extend.
    next_heartbeat: u64,
    /// Commands that are not executed yet, in order.
    todo: VecDeque<Command>,
}

impl Engine {
    pub(super) fn run_settling(self: &Arc<Self>, settler: Box<dyn Settler>) {
        become_worker();
        let Some(bridge) = &self.bridge else { return };
        let lease_time = settler.lease_time().map(nanos);
        let mut settling = Settling { settler, lease_time, next_heartbeat: 0, todo: VecDeque::new() };
        let mut pauses = Pauses::new();
        loop {
            let closing = bridge.closing.is_set();
            if closing {
                // So that leases which the ingest thread releases last are settled, too.
                bridge.ingest_ended.wait(POLL_WAIT);
            } else if settling.todo.is_empty() {
                settling.wait(bridge);
            }
            let step =
                guarded(|| settling.step(self, bridge)).unwrap_or_else(|panic| Err(BackendError::Unavailable(panic)));
            if closing {
                return;
            }
            match step {
                Ok(()) => pauses = Pauses::new(),
                Err(error) => {
                    bridge.record_error(&error);
                    pauses.pause(self, bridge);
                }
            }
        }
    }
}

impl Settling {
    /// Waits for a command, at most a twelfth of the lease time: then leases may be due for extension.
    fn wait(&mut self, bridge: &Bridge) {
        let limit = self.lease_time.map(|time| Duration::from_nanos(time / 12));
        self.todo.extend(bridge.commands.wait(limit));
    }

    /// Claims the name if that is outstanding, extends the leases that are due, and executes all commands.
    fn step(&mut self, engine: &Engine, bridge: &Bridge) -> Result<(), BackendError> {
        bridge.claim_late(&mut *self.settler, engine.clock.now())?;
        // Before the commands, so that no lease expires while a command fails and is retried.
        self.extend_leases(engine, bridge)?;
        self.todo.extend(bridge.commands.drain());
        while !self.todo.is_empty() {
            self.settle_first(engine, bridge)?;
            self.execute_first(bridge)?;
        }
        Ok(())
    }

    /// Settles all leases at the front of the queue, up to [`MAX_SETTLE`] per call.
    fn settle_first(&mut self, engine: &Engine, bridge: &Bridge) -> Result<(), BackendError> {
        loop {
            let settlement = |command: &Command| match command {
                Command::Settle(settlement) => Some(settlement.clone()),
                _ => None,
            };
            let batch: Vec<Settlement> = self.todo.iter().map_while(settlement).take(MAX_SETTLE).collect();
            if batch.is_empty() {
                return Ok(());
            }
            match self.settler.settle(&batch) {
                Ok(lost) => _ = bridge.inbound.leases_lost.fetch_add(lost.len() as u64, Ordering::SeqCst),
                Err(error @ BackendError::Unavailable(_)) => return Err(error),
                // A refusal is final, so it is not retried.
                Err(error) => bridge.record_error(&error),
            }
            self.todo.drain(..batch.len());
            {
                let mut leases = bridge.inbound.leases.lock();
                batch.iter().for_each(|settlement| leases.remove(settlement.token));
            }
            bridge.inbound.outstanding.fetch_sub(batch.len() as u64, Ordering::SeqCst);
            engine.lifecycle.event_settled();
        }
    }

    /// Executes the command at the front of the queue, unless it settles a lease.
    fn execute_first(&mut self, bridge: &Bridge) -> Result<(), BackendError> {
        let settler = &mut *self.settler;
        let done = match self.todo.front() {
            None | Some(Command::Settle(_)) => return Ok(()),
            Some(Command::Register(registration, registered)) => settler.register(registration).map(|()| {
                registered.set(Ok(()));
                bridge.inbound.wake();
            }),
            Some(Command::Unregister(name)) => settler.unregister(name),
            Some(Command::Remove(name, removed)) => settler.remove(name).map(|known| removed.set(Ok(known))),
            Some(Command::Mark(token, marked)) => settler.mark(*token, true).map(|is_valid| marked.set(is_valid)),
            Some(Command::Unmark(token)) => settler.mark(*token, false).map(|_| ()),
            Some(Command::Reach(reached)) => {
                reached.set(());
                Ok(())
            }
            Some(Command::Close) => Ok(()),
        };
        match done {
            Err(error @ BackendError::Unavailable(_)) => return Err(error),
            Err(error) => {
                bridge.record_error(&error);
                match self.todo.front() {
                    Some(Command::Register(_, registered)) => registered.set(Err(error)),
                    Some(Command::Remove(_, removed)) => removed.set(Err(error)),
                    Some(Command::Mark(_, marked)) => marked.set(false),
                    _ => {}
                }
            }
            Ok(()) => {}
        }
        self.todo.pop_front();
        Ok(())
    }

    /// Extends the leases that are due, and sends the heartbeat of this instance.
    fn extend_leases(&mut self, engine: &Engine, bridge: &Bridge) -> Result<(), BackendError> {
        let Some(lease_time) = self.lease_time else { return Ok(()) };
        let (now, max_call) = (engine.clock.now(), nanos(engine.config.max_handler_time));
        let due = bridge.inbound.leases.lock().due(now, lease_time, max_call);
        if due.is_empty() && now < self.next_heartbeat {
            return Ok(());
        }
        let tokens: Vec<LeaseToken> = due.iter().map(|lease| lease.token).collect();
        let lost = self.settler.extend(&tokens)?;
        self.next_heartbeat = now.saturating_add(lease_time / 3);
        for lease in due {
            if lost.contains(&lease.token) {
                bridge.inbound.leases.lock().lose_behind(&lease);
            } else {
                lease.extend(now, lease_time);
            }
        }
        Ok(())
    }
}
