//! What the engine knows of its back end, and what the bridge threads share: [`mirror`] takes events out, [`ingest`] brings
//! deliveries in, [`settling`] takes their verdicts back, and by way of it [`registering`] tells of subscriptions. Names no vendor.
//!
//! With a mirror a publish is accepted when the back end holds the event; concurrent publishers share its round trips.
//! With an ingest the deliveries of group subscriptions come back from there under a lease ([`held`]), which is settled after
//! the handler; local subscriptions receive from this process as without a back end. What came back from a lost lease runs
//! alone ([`suspects`]); what failed may wait for its retry there ([`deferring`]). A back end that fails is called again after growing pauses; meanwhile the bounds hold. The threads end
//! after the workers, so that what those settle last still reaches the back end.

mod buffered;
mod deferring;
mod held;
mod ingest;
mod joining;
mod mirror;
mod registering;
mod settling;
mod suspects;
mod wait;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use flume::{Receiver, Sender};
use parking_lot::Mutex;

use crate::config::{Confirm, Scope};
use crate::engine::Engine;
use crate::event::{Event, EventId, Status};
use crate::lifecycle::Role;
use crate::provider::{
    BackendError, Capabilities, EventStore, Ingest, LeaseOutcome, Mirror, Operator, Provider, Settlement, Settler,
    StatusChange, Waker,
};
use crate::receipt::Gate;
use crate::stats::BridgeStats;
use crate::store::{Progress, Record};
use crate::subscription::Subscription;
pub(crate) use held::Held;
use held::Leases;
use joining::Joining;
pub(crate) use mirror::Unsent;
use mirror::{Batch, GATES, Job};
use registering::Registered;
pub(crate) use registering::{ORDER_ACROSS_INSTANCES, START_POSITIONS};
use settling::Command;
pub(crate) use suspects::Suspects;
use wait::{Bell, Latch};

/// Events that wait for the back end.
const MAX_BACKLOG: usize = 10_000;
/// Events whose status the back end does not know yet: while there are more, nothing is published.
const MAX_UNTOLD: usize = 100_000;
/// How long a call of a suspect waits until the back end knows of it; without that it does not begin.
const MARK_WITHIN: Duration = Duration::from_secs(5);

/// Where deliveries come from, and where their verdicts go.
type Inward = (Box<dyn Ingest>, Box<dyn Settler>);

/// See the module's page.
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) capabilities: Capabilities,
    pub(crate) store: Option<Arc<dyn EventStore>>,
    pub(crate) operator: Option<Arc<dyn Operator>>,
    /// The name of this instance, until the back end holds it.
    joining: Mutex<Option<Joining>>,
    /// Until its thread takes it.
    mirror: Mutex<Option<Box<dyn Mirror>>>,
    ingest: Mutex<Option<Inward>>,
    /// Interrupts an ingest that waits.
    waker: Option<Waker>,
    /// How long a lease lasts, once the settler has said so.
    lease_time: OnceLock<Option<Duration>>,
    pub(crate) has_mirror: bool,
    pub(crate) has_ingest: bool,
    /// An event is accepted before the back end holds it.
    pub(crate) buffers: bool,
    /// Bounded by `unconfirmed`.
    jobs: (Sender<Job>, Receiver<Job>),
    /// Bounded by the leases and the subscriptions that exist.
    commands: (Sender<Command>, Receiver<Command>),
    /// Events that were taken and are not confirmed.
    unconfirmed: AtomicU64,
    /// Verdicts on leases, and events whose status has changed, that the back end does not know yet.
    owed: AtomicU64,
    /// The latest status of each such event.
    untold: Mutex<HashMap<EventId, StatusChange>>,
    /// Leases that are not settled.
    held: Mutex<Leases>,
    /// Some subscription had little room when the ingest looked last.
    starved: AtomicBool,
    /// Wakes the ingest thread when it does not wait for the back end.
    bell: Bell,
    /// Deliveries may be coming in: the ingest thread has looked whether the broker runs, and has not taken them in yet.
    receiving: AtomicBool,
    /// What the mirror gets next.
    ready: Mutex<Batch>,
    /// Where publishers wait for its outcomes: each batch at the next one.
    gates: [Arc<Gate>; GATES],
    /// The batches that the mirror got so far.
    round: AtomicUsize,
    /// What the mirror has under way.
    sending: Mutex<Option<Arc<Vec<Event>>>>,
    /// Events whose outcome nobody will ever know.
    unflushed: Mutex<Vec<Event>>,
    registrations: Mutex<Vec<Arc<Registered>>>,
    closing: Latch<()>,
    ingest_ended: Latch<()>,
    mirrored: AtomicU64,
    ingested: AtomicU64,
    released: AtomicU64,
    leases_lost: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Bridge {
    /// Nothing for a provider that lives in this process only.
    pub(crate) fn new(provider: Provider, confirm: Confirm) -> Option<Self> {
        let Provider { name, store, mirror, ingest, operator, capabilities } = provider;
        if store.is_none() && mirror.is_none() && ingest.is_none() && operator.is_none() {
            return None;
        }
        Some(Self {
            name,
            capabilities,
            store,
            operator,
            buffers: mirror.is_some() && confirm == Confirm::Buffered,
            has_mirror: mirror.is_some(),
            has_ingest: ingest.is_some(),
            waker: ingest.as_ref().and_then(|(ingest, _)| ingest.waker()),
            lease_time: OnceLock::new(),
            joining: Mutex::default(),
            mirror: Mutex::new(mirror),
            ingest: Mutex::new(ingest),
            jobs: flume::unbounded(),
            commands: flume::unbounded(),
            unconfirmed: AtomicU64::new(0),
            owed: AtomicU64::new(0),
            untold: Mutex::default(),
            held: Mutex::default(),
            starved: AtomicBool::new(false),
            bell: Bell::default(),
            receiving: AtomicBool::new(false),
            ready: Mutex::default(),
            gates: Default::default(),
            round: AtomicUsize::new(0),
            sending: Mutex::default(),
            unflushed: Mutex::default(),
            registrations: Mutex::default(),
            closing: Latch::new(),
            ingest_ended: Latch::new(),
            mirrored: AtomicU64::new(0),
            ingested: AtomicU64::new(0),
            released: AtomicU64::new(0),
            leases_lost: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last_error: Mutex::default(),
        })
    }

    /// What operators ask for, or the error that says that there is none.
    pub(crate) fn operator(&self, feature: &'static str, can: bool) -> Result<&Arc<dyn Operator>, BackendError> {
        let unsupported = || BackendError::Unsupported { provider: self.name.clone(), feature };
        self.operator.as_ref().filter(|_| can).ok_or_else(unsupported)
    }

    /// Whether the deliveries of subscriptions of this scope come from the back end.
    pub(crate) fn serves(&self, scope: Scope) -> bool {
        self.has_ingest && scope != Scope::Local
    }

    fn command(&self, command: Command) {
        // Sending fails only without a receiver, which lives beside the sender.
        let _ = self.commands.0.send(command);
    }

    /// A leased delivery has ended.
    pub(crate) fn settle_lease(&self, held: &Held, outcome: LeaseOutcome) {
        if outcome == LeaseOutcome::Released {
            self.released.fetch_add(1, Ordering::SeqCst);
        }
        held.settle();
        self.owed.fetch_add(1, Ordering::SeqCst);
        self.command(Command::Settle(Settlement::new(held.token, outcome)));
    }

    /// See [`Leases::lose_behind`].
    fn lose_behind(&self, lost: &Held) {
        self.held.lock().lose_behind(lost);
    }

    /// A lease for whose delivery there is no place.
    fn release(&self, held: &Held) {
        held.settle();
        self.owed.fetch_add(1, Ordering::SeqCst);
        self.command(Command::Settle(Settlement::new(held.token, LeaseOutcome::Released)));
    }

    /// Has the back end told that a call of a suspect begins. Waits for its answer: false if the lease is lost, or nobody knows.
    fn mark(&self, held: &Held) -> bool {
        let marked = Arc::new(Latch::new());
        self.command(Command::Mark(held.token, Arc::clone(&marked)));
        marked.wait(MARK_WITHIN).unwrap_or(false)
    }

    /// Waits until what was given back is so at the back end too.
    fn wait_until_settled(&self) {
        let reached = Arc::new(Latch::new());
        self.command(Command::Reach(Arc::clone(&reached)));
        // Later at the latest: a back end that is away hands nothing over either.
        let _ = reached.wait(MARK_WITHIN);
    }

    fn unmark(&self, held: &Held) {
        self.command(Command::Unmark(held.token));
    }

    /// A delivery has left the queue of a subscription: the ingest may bring more.
    pub(crate) fn made_room(&self, subscription: &Subscription) {
        if self.starved.load(Ordering::Relaxed)
            && subscription.inbox.is_half_empty()
            && self.starved.swap(false, Ordering::SeqCst)
        {
            self.ring();
        }
    }

    /// Has the ingest thread look again how much room there is, and for whom.
    pub(crate) fn ring(&self) {
        self.bell.ring();
        if let Some(wake) = &self.waker {
            wake();
        }
    }

    /// A status changed by a delivery that the back end did not hand over: its store is told.
    pub(crate) fn note_status(&self, record: &Record, status: Status, error: Option<String>) {
        if self.store.is_none() {
            return;
        }
        let id = record.event.id();
        let change = StatusChange::new(id.clone(), status, error, record.retries());
        let mut untold = self.untold.lock();
        let was_empty = untold.is_empty();
        if untold.insert(id.clone(), change).is_none() {
            self.owed.fetch_add(1, Ordering::SeqCst);
        }
        drop(untold);
        if was_empty {
            self.wake_mirror();
        }
    }

    /// When nothing of an event is open any more, its store is told how those deliveries ended that it did not hand over, if
    /// there were any: whichever delivery was the last.
    pub(crate) fn note_end(&self, record: &Record, progress: Progress) {
        if !progress.is_open() && progress.has_local() {
            let (status, error) = record.local_end();
            self.note_status(record, status, error);
        }
    }

    fn wake_mirror(&self) {
        // As in `command`.
        let _ = self.jobs.0.send(Job::Wake);
    }

    fn has_too_much_untold(&self) -> bool {
        self.untold.lock().len() >= MAX_UNTOLD
    }

    /// Nothing waits for the back end, and nothing is coming in.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.receiving.load(Ordering::SeqCst)
            && self.unconfirmed.load(Ordering::SeqCst) == 0
            && self.owed.load(Ordering::SeqCst) == 0
    }

    /// Nothing more will come: the threads try once what is left, and end.
    pub(crate) fn close(&self) {
        self.closing.set(());
        self.wake_mirror();
        self.command(Command::Close);
        self.ring();
    }

    /// Deliveries that were given back.
    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::SeqCst)
    }

    pub(crate) fn stats(&self) -> BridgeStats {
        BridgeStats {
            mirrored: self.mirrored.load(Ordering::SeqCst),
            mirror_backlog: self.unconfirmed.load(Ordering::SeqCst),
            ingested: self.ingested.load(Ordering::SeqCst),
            leases: self.held.lock().len() as u64,
            leases_lost: self.leases_lost.load(Ordering::SeqCst),
            errors: self.errors.load(Ordering::SeqCst),
            last_error: self.last_error.lock().clone(),
        }
    }

    pub(crate) fn note_error(&self, error: &BackendError) {
        self.errors.fetch_add(1, Ordering::SeqCst);
        *self.last_error.lock() = Some(error.to_string());
        tracing::warn!(provider = self.name, %error, "the back end failed");
    }
}

impl Engine {
    /// Starts the bridge threads, and waits until the back end knows the subscriptions.
    pub(crate) fn start_bridge(self: &Arc<Self>) -> Result<(), (String, String)> {
        let Some(bridge) = &self.bridge else { return Ok(()) };
        let ingest = bridge.ingest.lock().take();
        if let Some((ingest, settler)) = ingest {
            bridge.lease_time.get_or_init(|| settler.lease_time());
            let engine = Arc::clone(self);
            self.lifecycle.spawn(Role::Bridge, "settle", move || engine.run_settling(settler))?;
            bridge.wait_for_registrations();
            let engine = Arc::clone(self);
            self.lifecycle.spawn(Role::Bridge, "ingest", move || engine.run_ingest(ingest))?;
        }
        let mirror = bridge.mirror.lock().take();
        if mirror.is_some() || bridge.store.is_some() {
            let engine = Arc::clone(self);
            self.lifecycle.spawn(Role::Bridge, "mirror", move || engine.run_mirror(mirror))?;
        }
        Ok(())
    }
}
