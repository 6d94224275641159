//! The bridge threads: events out through the provider's mirror, deliveries in through its ingest. Names no vendor.
//!
//! With a mirror a publish is accepted when the back end holds the event; concurrent publishers share its round trips.
//! With an ingest the deliveries of group subscriptions come back from there under a lease, which is settled after the
//! handler; local subscriptions receive from this process as without a back end. A back end that fails is called again
//! with growing pauses; meanwhile the bounds hold.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flume::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;

use crate::clock::nanos;
use crate::config::{Scope, SubscribeOptions};
use crate::dispatch::{Publishing, Reservation};
use crate::engine::Engine;
use crate::error::{FullLimit, PublishError, SubscribeError};
use crate::event::{Event, EventId, Status};
use crate::inbox::{History, Place, Queued};
use crate::lifecycle::Phase;
use crate::provider::{
    BackendError, Capabilities, EventStore, Ingest, Lease, LeaseOutcome, LeaseToken, Mirror, Provider, Registration,
    SendOutcome,
};
use crate::receipt::Pending;
use crate::stats::BridgeStats;
use crate::store::Record;
use crate::subscription::Subscription;
use crate::verdict::{Accepted, Verdict};

/// Events, and status changes, that wait for the back end.
const MAX_BACKLOG: usize = 10_000;
/// Events per call of the mirror.
const MAX_BATCH: usize = 256;
/// Deliveries per call of the ingest.
const MAX_RECEIVE: usize = 256;
/// How long a bridge thread waits for something to do, before it looks whether the broker stops.
const WAIT: Duration = Duration::from_millis(50);
/// Pauses between calls of a back end that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// An event on its way out, with the room that is reserved for it here.
struct Outgoing {
    event: Event,
    /// Nothing if the publisher dispatches it by itself, once it is confirmed.
    reservation: Option<Reservation>,
    pending: Arc<Pending>,
}

impl Outgoing {
    fn release(&self) {
        if let Some(reservation) = &self.reservation {
            reservation.release();
        }
    }
}

/// What the ingest thread is asked to do.
enum Command {
    Register(Registration),
    Unregister(Arc<str>),
    Settle(LeaseToken, LeaseOutcome),
}

/// A new status for the provider's store.
struct StatusChange {
    id: EventId,
    status: Status,
    error: Option<String>,
}

/// What the engine knows of its back end.
pub(crate) struct Bridge {
    name: String,
    capabilities: Capabilities,
    pub(crate) store: Option<Arc<dyn EventStore>>,
    /// Until its thread takes it.
    mirror: Mutex<Option<Box<dyn Mirror>>>,
    ingest: Mutex<Option<Box<dyn Ingest>>>,
    pub(crate) has_mirror: bool,
    has_ingest: bool,
    outgoing: (Sender<Outgoing>, Receiver<Outgoing>),
    statuses: (Sender<StatusChange>, Receiver<StatusChange>),
    /// Bounded by the leases and subscriptions that exist.
    commands: (Sender<Command>, Receiver<Command>),
    /// Events that were taken and are not confirmed.
    unconfirmed: AtomicU64,
    unflushed: Mutex<Vec<Event>>,
    mirrored: AtomicU64,
    ingested: AtomicU64,
    released: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Bridge {
    /// Nothing for a provider that lives in this process only.
    pub(crate) fn new(provider: Provider) -> Option<Self> {
        let Provider { name, store, mirror, ingest, capabilities } = provider;
        if store.is_none() && mirror.is_none() && ingest.is_none() {
            return None;
        }
        Some(Self {
            name,
            capabilities,
            store,
            has_mirror: mirror.is_some(),
            has_ingest: ingest.is_some(),
            mirror: Mutex::new(mirror),
            ingest: Mutex::new(ingest),
            outgoing: flume::bounded(MAX_BACKLOG),
            statuses: flume::bounded(MAX_BACKLOG),
            commands: flume::unbounded(),
            unconfirmed: AtomicU64::new(0),
            unflushed: Mutex::default(),
            mirrored: AtomicU64::new(0),
            ingested: AtomicU64::new(0),
            released: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last_error: Mutex::default(),
        })
    }

    /// Whether the back end offers what a subscription asks for.
    pub(crate) fn check(&self, options: &SubscribeOptions) -> Result<(), SubscribeError> {
        let missing = match options.scope {
            Scope::Group if self.has_ingest && !self.capabilities.groups => "groups",
            Scope::Broadcast if self.has_ingest && !self.capabilities.broadcast => "broadcast",
            _ => return Ok(()),
        };
        Err(SubscribeError::Unsupported { provider: self.name.clone(), feature: missing })
    }

    /// Whether the deliveries of a subscription come from the back end.
    pub(crate) fn serves(&self, subscription: &Subscription) -> bool {
        self.has_ingest && subscription.scope != Scope::Local
    }

    pub(crate) fn register(&self, subscription: &Subscription) {
        if self.serves(subscription) {
            let (name, pattern) = (Arc::clone(&subscription.name), subscription.pattern.as_str().into());
            self.command(Command::Register(Registration::new(name, pattern, subscription.scope)));
        }
    }

    pub(crate) fn unregister(&self, subscription: &Subscription) {
        if self.serves(subscription) {
            self.command(Command::Unregister(Arc::clone(&subscription.name)));
        }
    }

    fn command(&self, command: Command) {
        // The receiver lives beside the sender.
        let _ = self.commands.0.send(command);
    }

    /// A status has become final: the provider's store is told, if the backlog has room.
    pub(crate) fn note_status(&self, id: &EventId, status: Status, error: Option<&str>) {
        if self.store.is_some() {
            let change = StatusChange { id: id.clone(), status, error: error.map(String::from) };
            if self.statuses.0.try_send(change).is_err() {
                self.note_error(&BackendError::Unavailable("a status change was lost: the backlog is full".into()));
            }
        }
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.unconfirmed.load(Ordering::SeqCst) == 0 && self.statuses.1.is_empty()
    }

    /// Events that the back end has not confirmed.
    pub(crate) fn take_unflushed(&self) -> Vec<Event> {
        std::mem::take(&mut self.unflushed.lock())
    }

    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::SeqCst)
    }

    pub(crate) fn stats(&self) -> BridgeStats {
        BridgeStats {
            mirrored: self.mirrored.load(Ordering::SeqCst),
            mirror_backlog: self.unconfirmed.load(Ordering::SeqCst),
            ingested: self.ingested.load(Ordering::SeqCst),
            errors: self.errors.load(Ordering::SeqCst),
            last_error: self.last_error.lock().clone(),
        }
    }

    fn note_error(&self, error: &BackendError) {
        self.errors.fetch_add(1, Ordering::SeqCst);
        *self.last_error.lock() = Some(error.to_string());
        tracing::warn!(provider = self.name, %error, "the back end failed");
    }
}

impl Engine {
    /// Starts the bridge threads.
    pub(crate) fn start_bridge(self: &Arc<Self>) -> Result<(), (String, String)> {
        let Some(bridge) = &self.bridge else { return Ok(()) };
        let mirror = bridge.mirror.lock().take();
        if mirror.is_some() || bridge.store.is_some() {
            let engine = Arc::clone(self);
            self.lifecycle.spawn("mirror", move || engine.run_mirror(mirror))?;
        }
        if let Some(ingest) = bridge.ingest.lock().take() {
            let engine = Arc::clone(self);
            self.lifecycle.spawn("ingest", move || engine.run_ingest(ingest))?;
        }
        Ok(())
    }

    /// Hands an event, with the room that it needs here, to the mirror thread.
    pub(crate) fn send_out(
        &self,
        bridge: &Bridge,
        _publishing: &Publishing<'_>,
        event: Event,
        reservation: Option<Reservation>,
        pending: &Arc<Pending>,
    ) -> Result<(), PublishError> {
        bridge.unconfirmed.fetch_add(1, Ordering::SeqCst);
        let outgoing = Outgoing { event, reservation, pending: Arc::clone(pending) };
        bridge.outgoing.0.try_send(outgoing).or_else(|error| {
            let (TrySendError::Full(back) | TrySendError::Disconnected(back)) = error;
            bridge.unconfirmed.fetch_sub(1, Ordering::SeqCst);
            back.release();
            let limit = FullLimit::Mirror { max: MAX_BACKLOG };
            self.refuse(PublishError::Full { event: back.event.into(), limit })
        })
    }

    fn run_mirror(self: &Arc<Self>, mut mirror: Option<Box<dyn Mirror>>) {
        crate::delivery::become_worker();
        let Some(bridge) = &self.bridge else { return };
        while self.lifecycle.phase() != Phase::Stopped {
            let first = bridge.outgoing.1.recv_timeout(WAIT);
            let batch: Vec<Outgoing> = first.into_iter().chain(bridge.outgoing.1.try_iter()).take(MAX_BATCH).collect();
            if let Some(mirror) = &mut mirror
                && !batch.is_empty()
            {
                self.mirror_batch(bridge, &mut **mirror, batch);
            }
            self.update_statuses(bridge);
        }
        for left in bridge.outgoing.1.try_iter() {
            self.give_up(bridge, left, "the broker has stopped");
        }
    }

    /// Sends a batch until the back end has answered, or the broker has stopped.
    fn mirror_batch(self: &Arc<Self>, bridge: &Bridge, mirror: &mut dyn Mirror, batch: Vec<Outgoing>) {
        let events: Vec<Event> = batch.iter().map(|outgoing| outgoing.event.clone()).collect();
        let mut pause = FIRST_PAUSE;
        let outcomes = loop {
            match mirror.send(&events) {
                Ok(outcomes) => break outcomes,
                Err(BackendError::Refused(reason)) => break vec![SendOutcome::Refused(reason); events.len()],
                Err(error @ BackendError::Unavailable(_)) => {
                    bridge.note_error(&error);
                    if self.lifecycle.phase() == Phase::Stopped {
                        batch.into_iter().for_each(|outgoing| self.give_up(bridge, outgoing, &error.to_string()));
                        return;
                    }
                    std::thread::sleep(pause.min(WAIT));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        let mut outcomes = outcomes.into_iter();
        for outgoing in batch {
            match outcomes.next() {
                Some(SendOutcome::Held) => self.confirm(bridge, outgoing),
                Some(SendOutcome::Refused(reason)) => {
                    outgoing.release();
                    let event = Box::new(outgoing.event);
                    let refused = self.refuse(PublishError::Rejected { event, reason });
                    outgoing.pending.resolve(refused);
                    bridge.unconfirmed.fetch_sub(1, Ordering::SeqCst);
                }
                None => self.give_up(bridge, outgoing, "the back end gave no outcome"),
            }
        }
    }

    /// The back end holds an event: now it is accepted, and dispatched to the local subscriptions.
    fn confirm(self: &Arc<Self>, bridge: &Bridge, outgoing: Outgoing) {
        bridge.mirrored.fetch_add(1, Ordering::SeqCst);
        let accepted = match outgoing.reservation {
            Some(reservation) => self.dispatch_reserved(outgoing.event, reservation),
            None => Ok(Accepted { id: outgoing.event.id().clone(), duplicate: false, deliveries: 0 }),
        };
        outgoing.pending.resolve(accepted);
        bridge.unconfirmed.fetch_sub(1, Ordering::SeqCst);
    }

    fn give_up(&self, bridge: &Bridge, outgoing: Outgoing, reason: &str) {
        outgoing.release();
        bridge.unflushed.lock().push(outgoing.event.clone());
        let event = Box::new(outgoing.event);
        outgoing.pending.resolve(Err(PublishError::Unknown { event, reason: reason.to_owned() }));
        bridge.unconfirmed.fetch_sub(1, Ordering::SeqCst);
    }

    fn update_statuses(&self, bridge: &Bridge) {
        let Some(store) = &bridge.store else { return };
        for change in bridge.statuses.1.try_iter().take(MAX_BATCH) {
            if let Err(error) = store.update_status(&change.id, change.status, change.error.as_deref()) {
                bridge.note_error(&error);
            }
        }
    }

    /// A leased delivery has ended.
    pub(crate) fn settle_lease(&self, token: LeaseToken, verdict: Verdict) {
        let Some(bridge) = &self.bridge else { return };
        let outcome = match verdict {
            Verdict::Done | Verdict::Skipped => LeaseOutcome::Done,
            Verdict::Dead => LeaseOutcome::Dead,
            Verdict::Dropped | Verdict::Cancelled => LeaseOutcome::Released,
        };
        if outcome == LeaseOutcome::Released {
            bridge.released.fetch_add(1, Ordering::SeqCst);
        }
        bridge.command(Command::Settle(token, outcome));
    }

    fn run_ingest(self: &Arc<Self>, ingest: Box<dyn Ingest>) {
        crate::delivery::become_worker();
        let Some(bridge) = &self.bridge else { return };
        let mut state = IngestState { ingest, leases: HashMap::new(), todo: VecDeque::new(), pause: FIRST_PAUSE };
        loop {
            let phase = self.lifecycle.phase();
            if let Err(error) = state.step(self, bridge, phase) {
                bridge.note_error(&error);
                std::thread::sleep(state.pause.min(WAIT));
                state.pause = (state.pause * 2).min(LONGEST_PAUSE);
                if phase == Phase::Stopped {
                    return;
                }
            }
            if phase == Phase::Stopped && state.todo.is_empty() && bridge.commands.1.is_empty() {
                return;
            }
        }
    }

    /// How many deliveries the served subscriptions have room for, each.
    fn ingest_room(&self, bridge: &Bridge) -> usize {
        let subscriptions = self.subscriptions.lock().all();
        let room = |it: &Arc<Subscription>| it.inbox.capacity().saturating_sub(it.inbox.queued()) as usize;
        subscriptions.iter().filter(|it| bridge.serves(it)).map(room).min().unwrap_or(0).min(MAX_RECEIVE)
    }

    /// Takes a leased delivery in. False if there is no place for it.
    fn take_in(self: &Arc<Self>, lease: Lease) -> bool {
        let Some(subscription) = self.subscriptions.lock().find_by_name(&lease.subscription) else { return false };
        if !subscription.inbox.reserve() {
            return false;
        }
        let record = match self.store.put(lease.event, 1, None) {
            Ok(record) => record,
            Err((_, known)) => {
                self.reopen(&known, Record::add_one);
                known
            }
        };
        let mut delivery = Queued::new(record, Place::Queue);
        delivery.history = Some(Box::new(History { lease: Some(lease.token), ..History::default() }));
        let lane = subscription.lane(&delivery.record.event).cloned();
        subscription.inbox.push(delivery, lane.as_ref());
        self.after_push(&subscription);
        true
    }
}

/// What the ingest thread works on.
struct IngestState {
    ingest: Box<dyn Ingest>,
    /// Leases that are held, and when each was last extended.
    leases: HashMap<LeaseToken, u64>,
    /// Commands that are not done yet.
    todo: VecDeque<Command>,
    pause: Duration,
}

impl IngestState {
    fn step(&mut self, engine: &Arc<Engine>, bridge: &Bridge, phase: Phase) -> Result<(), BackendError> {
        self.todo.extend(bridge.commands.1.try_iter());
        while let Some(command) = self.todo.front() {
            match command {
                Command::Register(registration) => self.ingest.register(registration)?,
                Command::Unregister(name) => self.ingest.unregister(name)?,
                Command::Settle(token, outcome) => {
                    self.ingest.settle(*token, *outcome)?;
                    self.leases.remove(token);
                }
            }
            self.todo.pop_front();
        }
        self.extend_leases(engine.clock.now())?;
        let room = if phase == Phase::Running { engine.ingest_room(bridge) } else { 0 };
        if room == 0 {
            if phase != Phase::Stopped {
                self.todo.extend(bridge.commands.1.recv_timeout(WAIT));
            }
            return Ok(());
        }
        for lease in self.ingest.receive(room, WAIT)? {
            let token = lease.token;
            self.leases.insert(token, engine.clock.now());
            bridge.ingested.fetch_add(1, Ordering::SeqCst);
            if !engine.take_in(lease) {
                self.todo.push_back(Command::Settle(token, LeaseOutcome::Released));
            }
        }
        self.pause = FIRST_PAUSE;
        Ok(())
    }

    fn extend_leases(&mut self, now: u64) -> Result<(), BackendError> {
        let Some(every) = self.ingest.heartbeat().map(nanos) else { return Ok(()) };
        let due: Vec<LeaseToken> = self.leases.iter().filter(|(_, at)| now - **at >= every).map(|(it, _)| *it).collect();
        if due.is_empty() {
            return Ok(());
        }
        self.ingest.extend(&due)?;
        self.leases.extend(due.into_iter().map(|token| (token, now)));
        Ok(())
    }
}
