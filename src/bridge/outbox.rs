//! The outgoing half of a bridge: events until the back end has confirmed them, and statuses until the back end has
//! stored them. The thread that sends them is in `engine/bridge/mirror_thread.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flume::{Receiver, Sender};
use parking_lot::Mutex;

use super::receipt::{Confirmation, ConfirmationGate};
use crate::event::{Event, EventId, Status};
use crate::outcome::FullLimit;
use crate::provider::StatusChange;
use crate::store::{Record, SharedRecord};
use crate::subscription::Reservation;

/// The most events, or statuses, per call of the back end.
pub(crate) const MAX_BATCH: usize = 256;
/// The most events that wait for the back end's confirmation.
const MAX_UNCONFIRMED: usize = 10_000;
/// From this many unreported statuses on, no event is accepted.
const MAX_UNREPORTED: usize = 100_000;
/// Publishers of this many consecutive batches wait at separate gates, so that one batch's outcomes wake only its own.
const GATES: usize = 4;

/// The outgoing half of a bridge.
pub(crate) struct Outbox {
    /// An event is accepted before the back end holds it ([`Confirm::Buffered`](crate::Confirm::Buffered)).
    pub(crate) buffers: bool,
    /// Jobs for the mirror thread. `unconfirmed` bounds the events among them.
    jobs: (Sender<Job>, Receiver<Job>),
    /// Events that were [reserved](Self::reserve) and are not confirmed.
    pub(crate) unconfirmed: AtomicU64,
    /// The next batch.
    ready: Mutex<Batch>,
    /// Publishers wait here for outcomes; batch `n` uses the gate `n % GATES`.
    gates: [Arc<ConfirmationGate>; GATES],
    /// Batches sent so far.
    round: AtomicUsize,
    /// The batch that is being sent.
    sending: Mutex<Option<Arc<Vec<Event>>>>,
    /// Events whose outcome will never be known.
    unflushed: Mutex<Vec<Event>>,
    /// The latest status of each event that is not reported to the back end's store yet.
    unreported: Mutex<HashMap<EventId, StatusChange>>,
    /// The number of unreported statuses, those in a call under way included.
    pub(crate) outstanding: AtomicU64,
    pub(crate) mirrored: AtomicU64,
}

/// A request to the mirror thread.
enum Job {
    Send(Outgoing),
    /// Statuses wait, or the bridge is closing.
    Wake,
}

/// An event to be sent to the back end.
pub(crate) struct Unsent {
    pub(crate) event: Event,
    /// Whether the back end [may hold the event already](Event::may_exist), judged when it was published.
    pub(crate) may_exist: bool,
}

/// An event that waits for the back end's confirmation.
pub(crate) struct Outgoing {
    pub(crate) event: Event,
    may_exist: bool,
    pub(crate) on_confirmed: OnConfirmed,
}

/// The step of the mirror thread that follows the back end's answer.
pub(crate) enum OnConfirmed {
    /// Resolves the confirmation that a publisher waits for.
    Answer {
        /// The places of the event in this process; `None` if the publisher enqueues the confirmed event itself.
        reservation: Option<Reservation>,
        confirmation: Arc<Confirmation>,
    },
    /// Settles the record of an event that was accepted before the confirmation.
    Settle(SharedRecord),
}

impl OnConfirmed {
    pub(crate) fn is_waited_for(&self) -> bool {
        matches!(self, Self::Answer { .. })
    }
}

/// The events of one call of the mirror.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) events: Vec<Event>,
}

impl Batch {
    fn add(&mut self, job: Job, instance_id: &Arc<str>) {
        if let Job::Send(outgoing) = job {
            self.events.push(outgoing.copy(instance_id));
            self.outgoing.push(outgoing);
        }
    }
}

impl Outgoing {
    /// The event as the mirror sends it: with the name of the instance.
    fn copy(&self, instance_id: &Arc<str>) -> Event {
        let mut event = self.event.clone();
        event.adopt(instance_id, None);
        if !self.may_exist {
            event.set_sole_copy();
        }
        event
    }
}

impl Outbox {
    pub(super) fn new(buffers: bool) -> Self {
        Self {
            buffers,
            jobs: flume::unbounded(),
            unconfirmed: AtomicU64::new(0),
            ready: Mutex::default(),
            gates: Default::default(),
            round: AtomicUsize::new(0),
            sending: Mutex::default(),
            unflushed: Mutex::default(),
            unreported: Mutex::default(),
            outstanding: AtomicU64::new(0),
            mirrored: AtomicU64::new(0),
        }
    }

    /// Reserves room for an event that will wait for the back end. [`release`](Self::release) gives the room back.
    ///
    /// # Errors
    /// The bound that is reached: [`MAX_UNREPORTED`] or [`MAX_UNCONFIRMED`].
    pub(crate) fn reserve(&self) -> Result<(), FullLimit> {
        if self.unreported.lock().len() >= MAX_UNREPORTED {
            return Err(FullLimit::Mirror { max: MAX_UNREPORTED });
        }
        let incremented = |waiting: u64| (waiting < MAX_UNCONFIRMED as u64).then_some(waiting + 1);
        match self.unconfirmed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, incremented) {
            Ok(_) => Ok(()),
            Err(_) => Err(FullLimit::Mirror { max: MAX_UNCONFIRMED }),
        }
    }

    /// Releases the room of a reserved event, which waits no longer.
    pub(crate) fn release(&self) {
        self.unconfirmed.fetch_sub(1, Ordering::SeqCst);
    }

    /// Passes a reserved event to the mirror thread.
    pub(crate) fn enqueue(&self, unsent: Unsent, on_confirmed: OnConfirmed) {
        let Unsent { event, may_exist } = unsent;
        // Sending fails only without a receiver, and `self` holds one.
        let _ = self.jobs.0.send(Job::Send(Outgoing { event, may_exist, on_confirmed }));
    }

    /// Wakes the mirror thread.
    pub(super) fn wake(&self) {
        // As in `enqueue`.
        let _ = self.jobs.0.send(Job::Wake);
    }

    /// Moves waiting events to the next batch, up to [`MAX_BATCH`].
    pub(crate) fn fill_batch(&self, instance_id: &Arc<str>) {
        let mut ready = self.ready.lock();
        let free = MAX_BATCH - ready.outgoing.len();
        self.jobs.1.try_iter().take(free).for_each(|job| ready.add(job, instance_id));
    }

    /// Blocks until a job comes, and fills the next batch.
    pub(crate) fn wait_and_fill(&self, instance_id: &Arc<str>) {
        let first = self.jobs.1.recv();
        first.into_iter().for_each(|job| self.ready.lock().add(job, instance_id));
        self.fill_batch(instance_id);
    }

    /// Fills the next batch until it has `expected` events, yielding the core, for at most `limit`. False on timeout.
    pub(crate) fn gather(&self, instance_id: &Arc<str>, expected: usize, limit: Duration) -> bool {
        let began = Instant::now();
        while self.batch_len() < expected {
            if began.elapsed() > limit {
                return false;
            }
            thread::yield_now();
            self.fill_batch(instance_id);
        }
        true
    }

    pub(crate) fn batch_len(&self) -> usize {
        self.ready.lock().outgoing.len()
    }

    pub(crate) fn has_batch(&self) -> bool {
        self.batch_len() > 0
    }

    /// Whether no job waits and no batch is ready.
    pub(crate) fn is_drained(&self) -> bool {
        self.jobs.1.is_empty() && !self.has_batch()
    }

    /// Takes the next batch for sending. Until [`end_sending`](Self::end_sending),
    /// [`take_unflushed`](Self::take_unflushed) includes its events.
    pub(crate) fn begin_sending(&self) -> (Vec<Outgoing>, Arc<Vec<Event>>) {
        let Batch { outgoing, events } = std::mem::take(&mut *self.ready.lock());
        self.round.fetch_add(1, Ordering::Relaxed);
        let events = Arc::new(events);
        *self.sending.lock() = Some(Arc::clone(&events));
        (outgoing, events)
    }

    /// The batch under way has its outcomes.
    pub(crate) fn end_sending(&self) {
        *self.sending.lock() = None;
    }

    /// Adds events whose outcome will never be known to the report of the stop.
    pub(crate) fn add_unflushed(&self, events: impl IntoIterator<Item = Event>) {
        self.unflushed.lock().extend(events);
    }

    /// Takes the events that the mirror thread has never sent.
    pub(crate) fn take_unsent(&self) -> Vec<Outgoing> {
        let ready = std::mem::take(&mut *self.ready.lock()).outgoing;
        let waiting = self.jobs.1.try_iter().filter_map(|job| match job {
            Job::Send(outgoing) => Some(outgoing),
            Job::Wake => None,
        });
        ready.into_iter().chain(waiting).collect()
    }

    /// Takes all events with an unknown outcome, including those of the batch under way.
    pub(crate) fn take_unflushed(&self) -> Vec<Event> {
        let mut unflushed = std::mem::take(&mut *self.unflushed.lock());
        unflushed.extend(self.sending.lock().iter().flat_map(|events| events.iter().cloned()));
        unflushed
    }

    /// The gate at which the publishers of the next batch wait.
    pub(crate) fn gate(&self) -> &Arc<ConfirmationGate> {
        &self.gates[self.round.load(Ordering::Relaxed) % GATES]
    }

    /// Wakes the publishers whose outcomes are known.
    pub(crate) fn open_gates(&self) {
        self.gates.iter().for_each(|gate| gate.open_if_due());
    }

    /// Adds a status for the back end's store. It replaces an older status of the same event.
    pub(super) fn add_status(&self, record: &Record, status: Status, error: Option<String>) {
        let id = record.event.id();
        let change = StatusChange::new(id.clone(), status, error, record.retries());
        let mut unreported = self.unreported.lock();
        let was_empty = unreported.is_empty();
        if unreported.insert(id.clone(), change).is_none() {
            self.outstanding.fetch_add(1, Ordering::SeqCst);
        }
        drop(unreported);
        if was_empty {
            self.wake();
        }
    }

    pub(crate) fn has_statuses(&self) -> bool {
        !self.unreported.lock().is_empty()
    }

    /// Takes at most [`MAX_BATCH`] statuses.
    pub(crate) fn take_statuses(&self) -> Vec<StatusChange> {
        let mut unreported = self.unreported.lock();
        let ids: Vec<_> = unreported.keys().take(MAX_BATCH).cloned().collect();
        ids.iter().filter_map(|id| unreported.remove(id)).collect()
    }

    /// Puts statuses back after their report failed. Returns how many; newer ones have replaced the others.
    pub(crate) fn put_statuses_back(&self, changes: Vec<StatusChange>) -> usize {
        let mut unreported = self.unreported.lock();
        let mut restored = 0;
        for change in changes {
            if !unreported.contains_key(&change.id) {
                restored += 1;
                unreported.insert(change.id.clone(), change);
            }
        }
        restored
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.unconfirmed.load(Ordering::SeqCst) == 0 && self.outstanding.load(Ordering::SeqCst) == 0
    }
}
