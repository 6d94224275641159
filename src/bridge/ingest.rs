//! The ingest thread: brings deliveries in from the back end, as many as there is room for, and takes their verdicts back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Bridge, Pauses, Registered};
use crate::clock::nanos;
use crate::engine::Engine;
use crate::handler::guarded;
use crate::inbox::{History, Place, Queued};
use crate::lifecycle::Phase;
use crate::provider::{BackendError, Ingest, Lease, LeaseOutcome, LeaseToken, Registration, Room};
use crate::store::By;

/// Deliveries per subscription and call of the ingest.
const MAX_RECEIVE: u64 = 256;
/// How long a call of the ingest waits for a delivery; commands wait for it.
const WAIT: Duration = Duration::from_millis(100);

/// What the ingest thread is asked to do.
pub(super) enum Command {
    Register(Registration, Arc<Registered>),
    Unregister(Arc<str>),
    Settle(LeaseToken, LeaseOutcome),
    /// Do what is left, and end.
    Close,
}

/// What the ingest thread works on.
struct Ingesting {
    ingest: Box<dyn Ingest>,
    /// Leases that are held, and when each was last extended.
    leases: HashMap<LeaseToken, u64>,
    /// Commands that are not done yet.
    todo: VecDeque<Command>,
}

impl Engine {
    pub(super) fn run_ingest(self: &Arc<Self>, ingest: Box<dyn Ingest>) {
        crate::delivery::become_worker();
        let Some(bridge) = &self.bridge else { return };
        let mut ingesting = Ingesting { ingest, leases: HashMap::new(), todo: VecDeque::new() };
        let mut pauses = Pauses::new();
        loop {
            let closing = bridge.closing.is_set();
            let step =
                guarded(|| ingesting.step(self, bridge)).unwrap_or_else(|panic| Err(BackendError::Unavailable(panic)));
            if closing {
                return;
            }
            match step {
                Ok(()) => pauses = Pauses::new(),
                Err(error) => {
                    bridge.note_error(&error);
                    pauses.pause(self, bridge);
                }
            }
        }
    }

    /// How many deliveries each served subscription has room for; those without room are not listed.
    fn room(&self, bridge: &Bridge) -> Vec<Room> {
        if self.lifecycle.phase() != Phase::Running {
            return Vec::new();
        }
        let subscriptions = self.subscriptions.lock().all();
        let served = subscriptions.iter().filter(|it| bridge.serves(it.scope) && !it.inbox.is_full());
        served
            .map(|it| {
                let free = it.inbox.capacity().saturating_sub(it.inbox.queued()).min(MAX_RECEIVE);
                Room::new(Arc::clone(&it.name), free as usize)
            })
            .filter(|room| room.deliveries > 0)
            .collect()
    }

    /// Takes a leased delivery in. False if there is no place for it.
    fn take_in(self: &Arc<Self>, lease: Lease) -> bool {
        let Some(subscription) = self.subscriptions.lock().find_by_name(&lease.subscription) else { return false };
        if !subscription.inbox.reserve() {
            return false;
        }
        let stored = match self.store.find(lease.event.id()) {
            Some(known) => Err(known),
            None => self.store_new(lease.event, 1, By::Ingest).map_err(|(_, known)| known),
        };
        let record = stored.unwrap_or_else(|known| {
            self.reopen(&known, |record| record.add(1));
            known
        });
        let mut delivery = Queued::new(record, Place::Queue);
        delivery.history = Some(Box::new(History { lease: Some(lease.token), ..History::default() }));
        let lane = subscription.lane(&delivery.record.event);
        subscription.inbox.push(delivery, lane);
        self.after_push(&subscription);
        true
    }
}

impl Ingesting {
    fn step(&mut self, engine: &Arc<Engine>, bridge: &Bridge) -> Result<(), BackendError> {
        // First of all, so that a back end that fails at something else loses no lease.
        self.extend_leases(engine.clock.now())?;
        self.todo.extend(bridge.commands.1.try_iter());
        while let Some(command) = self.todo.front() {
            match execute(&mut *self.ingest, command) {
                Err(error @ BackendError::Unavailable(_)) => return Err(error),
                // What is refused now is refused for ever.
                Err(error @ BackendError::Refused(_)) => {
                    bridge.note_error(&error);
                    if let Command::Register(_, known) = command {
                        known.set(Err(error));
                    }
                }
                Ok(()) => {}
            }
            if let Some(Command::Settle(token, _)) = self.todo.pop_front() {
                self.leases.remove(&token);
                bridge.owed.fetch_sub(1, Ordering::SeqCst);
            }
        }
        // Before the look at the phase, so that a stop either waits for what comes in, or nothing does.
        bridge.receiving.store(true, Ordering::SeqCst);
        let room = engine.room(bridge);
        let received = if room.is_empty() { Ok(()) } else { self.receive(engine, bridge, &room) };
        bridge.receiving.store(false, Ordering::SeqCst);
        if room.is_empty() && !bridge.closing.is_set() {
            // A verdict that makes room comes as a command.
            self.todo.extend(bridge.commands.1.recv_timeout(WAIT));
        }
        received
    }

    fn receive(&mut self, engine: &Arc<Engine>, bridge: &Bridge, room: &[Room]) -> Result<(), BackendError> {
        for lease in self.ingest.receive(room, WAIT)? {
            let token = lease.token;
            self.leases.insert(token, engine.clock.now());
            bridge.ingested.fetch_add(1, Ordering::SeqCst);
            if !engine.take_in(lease) {
                bridge.owed.fetch_add(1, Ordering::SeqCst);
                self.todo.push_back(Command::Settle(token, LeaseOutcome::Released));
            }
        }
        Ok(())
    }

    fn extend_leases(&mut self, now: u64) -> Result<(), BackendError> {
        let Some(every) = self.ingest.heartbeat().map(nanos) else { return Ok(()) };
        let due = self.leases.iter().filter(|(_, at)| now.saturating_sub(**at) >= every);
        let due: Vec<LeaseToken> = due.map(|(token, _)| *token).collect();
        if due.is_empty() {
            return Ok(());
        }
        self.ingest.extend(&due)?;
        self.leases.extend(due.into_iter().map(|token| (token, now)));
        Ok(())
    }
}

fn execute(ingest: &mut dyn Ingest, command: &Command) -> Result<(), BackendError> {
    match command {
        Command::Register(registration, known) => ingest.register(registration).map(|()| known.set(Ok(()))),
        Command::Unregister(name) => ingest.unregister(name),
        Command::Settle(token, outcome) => ingest.settle(*token, outcome),
        Command::Close => Ok(()),
    }
}
