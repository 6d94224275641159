//! What goes out to the back end: events until it has confirmed them, and statuses until it knows them. Who sends them is in
//! `engine/bridge/mirror_thread.rs`.

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

/// Events, or statuses, per call of the back end.
pub(crate) const MAX_BATCH: usize = 256;
/// Events that wait for the back end.
const MAX_UNCONFIRMED: usize = 10_000;
/// Events whose status the back end does not know yet: while there are more, no event is accepted.
const MAX_UNREPORTED: usize = 100_000;
/// Publishers of this many consecutive batches wait apart, so that the outcomes of one batch do not wake the publishers of the next.
const GATES: usize = 4;

/// The outgoing half of a bridge.
pub(crate) struct Outbox {
    /// An event is accepted before the back end holds it ([`Confirm::Buffered`](crate::Confirm::Buffered)).
    pub(crate) buffers: bool,
    /// Jobs for the mirror thread. `unconfirmed` bounds the events among them.
    jobs: (Sender<Job>, Receiver<Job>),
    /// Events that were taken and are not confirmed.
    unconfirmed: AtomicU64,
    /// The next batch.
    ready: Mutex<Batch>,
    /// Where publishers wait for outcomes; batch `n` uses the gate `n % GATES`.
    gates: [Arc<ConfirmationGate>; GATES],
    /// Batches sent so far.
    round: AtomicUsize,
    /// The batch that is being sent.
    sending: Mutex<Option<Arc<Vec<Event>>>>,
    /// Events whose outcome will never be known.
    unflushed: Mutex<Vec<Event>>,
    /// The latest status of each event that the back end's store does not know yet.
    unreported: Mutex<HashMap<EventId, StatusChange>>,
    /// The number of statuses that the back end's store does not know yet, those in a call under way included.
    outstanding: AtomicU64,
    mirrored: AtomicU64,
}

/// A request to the mirror thread.
enum Job {
    Send(Outgoing),
    /// Statuses wait, or the bridge is closing.
    Wake,
}

/// An event that the back end is to hold.
pub(crate) struct Unsent {
    pub(crate) event: Event,
    /// Whether the back end [may hold it already](Event::may_exist), as it was when the event was published.
    pub(crate) may_exist: bool,
}

/// An event that waits for the back end's confirmation.
pub(crate) struct Outgoing {
    pub(crate) event: Event,
    may_exist: bool,
    pub(crate) on_confirmed: OnConfirmed,
}

/// What follows from the back end's answer.
pub(crate) enum OnConfirmed {
    /// A publisher waits for it.
    Answer {
        /// The places of the event in this process; `None` if the publisher enqueues it by itself, once it is confirmed.
        reservation: Option<Reservation>,
        confirmation: Arc<Confirmation>,
    },
    /// The event was accepted before, and stays open here until then.
    Settle(SharedRecord),
}

impl OnConfirmed {
    pub(crate) fn is_waited_for(&self) -> bool {
        matches!(self, Self::Answer { .. })
    }
}

/// Events that go out in one call.
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
    /// The event as the mirror gets it: with the name of the instance.
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

    /// Counts an event that will wait for the back end.
    ///
    /// # Errors
    /// The bound that is reached.
    pub(crate) fn reserve(&self) -> Result<(), FullLimit> {
        if self.unreported.lock().len() >= MAX_UNREPORTED {
            return Err(FullLimit::Mirror { max: MAX_UNREPORTED });
        }
        let fits = |waiting: u64| (waiting < MAX_UNCONFIRMED as u64).then_some(waiting + 1);
        match self.unconfirmed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits) {
            Ok(_) => Ok(()),
            Err(_) => Err(FullLimit::Mirror { max: MAX_UNCONFIRMED }),
        }
    }

    /// An event that was counted waits no longer.
    pub(crate) fn answered(&self) {
        self.unconfirmed.fetch_sub(1, Ordering::SeqCst);
    }

    /// Passes an event that was counted to the mirror thread.
    pub(crate) fn enqueue(&self, unsent: Unsent, on_confirmed: OnConfirmed) {
        let Unsent { event, may_exist } = unsent;
        // Sending fails only without a receiver, which lives beside the sender.
        let _ = self.jobs.0.send(Job::Send(Outgoing { event, may_exist, on_confirmed }));
    }

    /// Wakes the mirror thread.
    pub(super) fn wake(&self) {
        // As in `enqueue`.
        let _ = self.jobs.0.send(Job::Wake);
    }

    /// Adds waiting events to the next batch, up to [`MAX_BATCH`].
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

    /// Fills the next batch until it has `expected` events, yielding to their publishers, for at most `limit`. False if they have not
    /// come.
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

    /// Takes the next batch for sending. Until [`sent`](Self::sent), [`take_unsent`](Self::take_unsent) returns its events.
    pub(crate) fn begin_sending(&self) -> (Vec<Outgoing>, Arc<Vec<Event>>) {
        let Batch { outgoing, events } = std::mem::take(&mut *self.ready.lock());
        self.round.fetch_add(1, Ordering::Relaxed);
        let events = Arc::new(events);
        *self.sending.lock() = Some(Arc::clone(&events));
        (outgoing, events)
    }

    /// The batch under way has its outcomes.
    pub(crate) fn sent(&self) {
        *self.sending.lock() = None;
    }

    /// Keeps events whose outcome will never be known, for the report of the stop.
    pub(crate) fn add_unflushed(&self, events: impl IntoIterator<Item = Event>) {
        self.unflushed.lock().extend(events);
    }

    /// Takes the events that the mirror thread has left behind without sending them.
    pub(crate) fn take_unsent(&self) -> Vec<Outgoing> {
        let ready = std::mem::take(&mut *self.ready.lock()).outgoing;
        let waiting = self.jobs.1.try_iter().filter_map(|job| match job {
            Job::Send(outgoing) => Some(outgoing),
            Job::Wake => None,
        });
        ready.into_iter().chain(waiting).collect()
    }

    /// Takes all events whose outcome is not known, those under way included.
    pub(crate) fn take_unflushed(&self) -> Vec<Event> {
        let mut unflushed = std::mem::take(&mut *self.unflushed.lock());
        unflushed.extend(self.sending.lock().iter().flat_map(|events| events.iter().cloned()));
        unflushed
    }

    /// The gate of the publishers whose events go out with the next batch.
    pub(crate) fn gate(&self) -> &Arc<ConfirmationGate> {
        &self.gates[self.round.load(Ordering::Relaxed) % GATES]
    }

    /// Wakes the publishers whose outcomes are known.
    pub(crate) fn open_gates(&self) {
        self.gates.iter().for_each(|gate| gate.open_if_due());
    }

    pub(crate) fn count_mirrored(&self) {
        self.mirrored.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn mirrored(&self) -> u64 {
        self.mirrored.load(Ordering::SeqCst)
    }

    pub(super) fn unconfirmed(&self) -> u64 {
        self.unconfirmed.load(Ordering::SeqCst)
    }

    /// Adds a status for the back end's store. It replaces an older one of the same event.
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

    /// Puts statuses back whose report failed. Returns how many; the others were replaced by newer ones meanwhile.
    pub(crate) fn put_statuses_back(&self, changes: Vec<StatusChange>) -> usize {
        let mut unreported = self.unreported.lock();
        let mut back = 0;
        for change in changes {
            if !unreported.contains_key(&change.id) {
                back += 1;
                unreported.insert(change.id.clone(), change);
            }
        }
        back
    }

    /// The back end's store knows this many statuses more, or newer ones stand for them.
    pub(crate) fn statuses_reported(&self, count: usize) {
        self.outstanding.fetch_sub(count as u64, Ordering::SeqCst);
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.unconfirmed.load(Ordering::SeqCst) == 0 && self.outstanding.load(Ordering::SeqCst) == 0
    }
}
