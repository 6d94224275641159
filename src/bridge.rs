//! The state of the connection to a back end, shared by the engine and the bridge threads. Names no vendor.
//!
//! The [`Outbox`] holds outgoing events until the back end has confirmed them, and statuses until the back end has
//! stored them. The [`Inbound`] holds the leases that this process has received and the state of the ingest thread.
//! [`Commands`] is the queue of the settling thread. The threads themselves are in `engine/bridge`.

mod command;
mod inbound;
mod instance_name;
mod notify;
mod outbox;
mod receipt;
mod registration;
mod suspect_queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{Confirm, Scope};
use crate::event::Status;
use crate::outcome::{BackendError, BridgeStats};
use crate::provider::{
    Capabilities, EventStore, Ingest, LeaseOutcome, Mirror, Operator, Provider, Settlement, Settler,
};
use crate::queue::HeldLease;
use crate::store::{Progress, Record};
pub(crate) use command::{Command, Commands};
pub(crate) use inbound::Inbound;
use instance_name::InstanceNameClaim;
pub(crate) use notify::Latch;
pub(crate) use outbox::{OnConfirmed, Outbox, Outgoing, Unsent};
pub(crate) use receipt::Confirmation;
pub use receipt::Receipt;
pub(crate) use registration::{ORDER_ACROSS_INSTANCES, Registered, START_POSITIONS};
pub(crate) use suspect_queue::SuspectQueue;

/// How long a suspect's call waits for the back end to acknowledge its mark; without that it does not begin.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// The back end of one broker.
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) capabilities: Capabilities,
    pub(crate) store: Option<Arc<dyn EventStore>>,
    pub(crate) operator: Option<Arc<dyn Operator>>,
    pub(crate) has_mirror: bool,
    pub(crate) has_ingest: bool,
    /// The parts that the bridge threads will own, until these start.
    parts: Mutex<ThreadParts>,
    pub(crate) outbox: Outbox,
    pub(crate) inbound: Inbound,
    pub(crate) commands: Commands,
    /// Suspects that wait for the crash guard.
    pub(crate) suspects: SuspectQueue,
    /// The name of this instance, until the back end has granted it.
    instance_name: Mutex<Option<InstanceNameClaim>>,
    /// Registrations made before the broker started.
    registrations: Mutex<Vec<Arc<Registered>>>,
    /// Set when the workers have ended or their grace is over: each bridge thread tries the rest once, and ends.
    pub(crate) closing: Latch<()>,
    pub(crate) ingest_ended: Latch<()>,
    errors: ErrorLog,
}

/// The parts of a provider that its threads own.
#[derive(Default)]
struct ThreadParts {
    mirror: Option<Box<dyn Mirror>>,
    ingest: Option<(Box<dyn Ingest>, Box<dyn Settler>)>,
}

/// The failed calls of the back end.
#[derive(Debug, Default)]
struct ErrorLog {
    count: AtomicU64,
    last: Mutex<Option<String>>,
}

impl Bridge {
    /// The bridge to a provider; `None` for a provider without a back end.
    pub(crate) fn new(provider: Provider, confirm: Confirm) -> Option<Self> {
        let Provider { name, store, mirror, ingest, operator, capabilities } = provider;
        if store.is_none() && mirror.is_none() && ingest.is_none() && operator.is_none() {
            return None;
        }
        Some(Self {
            name,
            capabilities,
            operator,
            has_mirror: mirror.is_some(),
            has_ingest: ingest.is_some(),
            outbox: Outbox::new(mirror.is_some() && confirm == Confirm::Buffered),
            inbound: Inbound::new(ingest.as_ref().and_then(|(ingest, _)| ingest.waker())),
            commands: Commands::new(),
            suspects: SuspectQueue::default(),
            store,
            parts: Mutex::new(ThreadParts { mirror, ingest }),
            instance_name: Mutex::default(),
            registrations: Mutex::default(),
            closing: Latch::new(),
            ingest_ended: Latch::new(),
            errors: ErrorLog::default(),
        })
    }

    /// The operator's part of the back end. `supported` says whether the back end offers `feature`.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] without that part, or if not `supported`.
    pub(crate) fn operator(&self, feature: &'static str, supported: bool) -> Result<&Arc<dyn Operator>, BackendError> {
        let unsupported = || BackendError::Unsupported { provider: self.name.clone(), feature };
        self.operator.as_ref().filter(|_| supported).ok_or_else(unsupported)
    }

    /// Whether subscriptions of this scope receive their deliveries from the back end.
    pub(crate) fn serves(&self, scope: Scope) -> bool {
        self.has_ingest && scope != Scope::Local
    }

    /// Takes the parts of the ingest thread and the settling thread. The caller starts these threads.
    pub(crate) fn take_ingest(&self) -> Option<(Box<dyn Ingest>, Box<dyn Settler>)> {
        let parts = self.parts.lock().ingest.take();
        parts.inspect(|(_, settler)| self.inbound.set_lease_time(settler.lease_time()))
    }

    /// Takes the part of the mirror thread. The caller starts this thread.
    pub(crate) fn take_mirror(&self) -> Option<Box<dyn Mirror>> {
        self.parts.lock().mirror.take()
    }

    /// Reports the outcome of a leased delivery to the back end.
    pub(crate) fn settle_lease(&self, lease: &HeldLease, outcome: LeaseOutcome) {
        self.inbound.settled(lease, outcome == LeaseOutcome::Released);
        self.commands.send(Command::Settle(Settlement::new(lease.token, outcome)));
    }

    /// Releases a lease whose delivery found no place in its queue. The report of a stop does not count it.
    pub(crate) fn release(&self, lease: &HeldLease) {
        self.inbound.settled(lease, false);
        self.commands.send(Command::Settle(Settlement::new(lease.token, LeaseOutcome::Released)));
    }

    /// Marks the start of a suspect's call at the back end. Waits for the acknowledgement, at most [`MARK_TIMEOUT`].
    /// False if the lease is lost or the acknowledgement did not come in time.
    pub(crate) fn mark(&self, lease: &HeldLease) -> bool {
        let marked = Arc::new(Latch::new());
        self.commands.send(Command::Mark(lease.token, Arc::clone(&marked)));
        marked.wait(MARK_TIMEOUT).unwrap_or(false)
    }

    /// Removes the mark of a call that has ended without settling its lease.
    pub(crate) fn unmark(&self, lease: &HeldLease) {
        self.commands.send(Command::Unmark(lease.token));
    }

    /// Waits until the settling thread has executed every command sent so far, at most [`MARK_TIMEOUT`].
    pub(crate) fn wait_until_settled(&self) {
        let reached = Arc::new(Latch::new());
        self.commands.send(Command::Reach(Arc::clone(&reached)));
        // After the timeout the caller continues: an unavailable back end delivers nothing either.
        let _ = reached.wait(MARK_TIMEOUT);
    }

    /// Adds to the outbox a status that local deliveries have given an event, for the back end's store.
    pub(crate) fn note_status(&self, record: &Record, status: Status, error: Option<String>) {
        if self.store.is_some() {
            self.outbox.add_status(record, status, error);
        }
    }

    /// Adds the final status of an event to the outbox, if some of its deliveries were local and none is open any more.
    pub(crate) fn note_end(&self, record: &Record, progress: Progress) {
        if !progress.is_open() && progress.has_local() {
            let (status, error) = record.local_end();
            self.note_status(record, status, error);
        }
    }

    /// Whether nothing waits for the back end and the ingest thread is not receiving.
    pub(crate) fn is_flushed(&self) -> bool {
        self.inbound.is_flushed() && self.outbox.is_flushed()
    }

    /// Ends the bridge threads: each tries the rest once. `stop` calls this after it has waited for the workers.
    pub(crate) fn close(&self) {
        self.closing.set(());
        self.outbox.wake();
        self.commands.send(Command::Close);
        self.inbound.wake();
    }

    pub(crate) fn stats(&self) -> BridgeStats {
        BridgeStats {
            mirrored: self.outbox.mirrored.load(Ordering::SeqCst),
            mirror_backlog: self.outbox.unconfirmed.load(Ordering::SeqCst),
            ingested: self.inbound.ingested.load(Ordering::SeqCst),
            leases: self.inbound.leases.lock().len() as u64,
            leases_lost: self.inbound.leases_lost.load(Ordering::SeqCst),
            errors: self.errors.count.load(Ordering::SeqCst),
            last_error: self.errors.last.lock().clone(),
        }
    }

    /// Counts and logs a failed call of the back end.
    pub(crate) fn record_error(&self, error: &BackendError) {
        self.errors.count.fetch_add(1, Ordering::SeqCst);
        *self.errors.last.lock() = Some(error.to_string());
        tracing::warn!(provider = self.name, %error, "the back end failed");
    }
}
