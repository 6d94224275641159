//! The settling thread: tells the back end which subscriptions are served and what became of the leases, many in one call, and
//! extends those that are held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::ingest_thread::POLL_WAIT;
use super::pauses::Pauses;
use crate::base::nanos;
use crate::bridge::{Bridge, Command};
use crate::engine::Engine;
use crate::outcome::BackendError;
use crate::provider::{LeaseToken, Settlement, Settler};
use crate::subscription::{become_worker, guarded};

/// Leases per call.
const MAX_SETTLE: usize = 256;

/// What the settling thread works on.
struct Settling {
    settler: Box<dyn Settler>,
    lease_time: Option<u64>,
    /// When the back end is to hear of this instance, leases or not.
    next_heartbeat: u64,
    /// Commands that are not done yet.
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
                // What that had in its hands is given back as well.
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
    /// Waits for a command, or until a lease may have to be extended.
    fn wait(&mut self, bridge: &Bridge) {
        let limit = self.lease_time.map(|time| Duration::from_nanos(time / 12));
        self.todo.extend(bridge.commands.wait(limit));
    }

    fn step(&mut self, engine: &Engine, bridge: &Bridge) -> Result<(), BackendError> {
        bridge.claim_late(&mut *self.settler, engine.clock.now())?;
        // Before the commands, so that a back end that fails at something else loses no lease.
        self.extend_leases(engine, bridge)?;
        self.todo.extend(bridge.commands.drain());
        while !self.todo.is_empty() {
            self.settle_first(engine, bridge)?;
            self.execute_first(bridge)?;
        }
        Ok(())
    }

    /// Settles the leases that stand first, as many as a call takes.
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
                Ok(lost) => bridge.inbound.count_lost(lost.len()),
                Err(error @ BackendError::Unavailable(_)) => return Err(error),
                // What is refused now is refused for ever.
                Err(error) => bridge.record_error(&error),
            }
            self.todo.drain(..batch.len());
            {
                let mut leases = bridge.inbound.leases();
                batch.iter().for_each(|settlement| leases.remove(settlement.token));
            }
            bridge.inbound.acknowledged(batch.len());
            engine.lifecycle.event_settled();
        }
    }

    /// Executes the command that stands first, if it is not to settle something.
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
            Some(Command::Mark(token, marked)) => settler.mark(*token, true).map(|good| marked.set(good)),
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

    /// Shows that this instance is alive, with the leases that it is time for.
    fn extend_leases(&mut self, engine: &Engine, bridge: &Bridge) -> Result<(), BackendError> {
        let Some(lease_time) = self.lease_time else { return Ok(()) };
        let (now, max_call) = (engine.clock.now(), nanos(engine.config.max_handler_time));
        let due = bridge.inbound.leases().due(now, lease_time, max_call);
        if due.is_empty() && now < self.next_heartbeat {
            return Ok(());
        }
        let tokens: Vec<LeaseToken> = due.iter().map(|lease| lease.token).collect();
        let lost = self.settler.extend(&tokens)?;
        self.next_heartbeat = now.saturating_add(lease_time / 3);
        for lease in due {
            if lost.contains(&lease.token) {
                bridge.inbound.lose_behind(&lease);
            } else {
                lease.extend(now, lease_time);
            }
        }
        Ok(())
    }
}
