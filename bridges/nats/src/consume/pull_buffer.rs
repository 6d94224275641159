//! The buffer between the [pull loops](super::pull_loop), which fill it, and the hand-out, which empties it. It requests as many messages as there is
//! room for. Messages that are not taken in time go back to the server.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subject;
use eventbroker::provider::BackendError;
use futures_channel::oneshot;
use parking_lot::{Condvar, Mutex};

use super::notify::Notify;
use super::pull_state::{PullState, PulledMessage, ReaderHandle};
use crate::jetstream::ack::IN_PROGRESS;
use crate::jetstream::{Ack, Consumer};
use crate::partitions::{HandoverEffect, HandoverEvent};
use crate::settings::LeaseTimes;
use crate::subscriptions::GiveBack;
use crate::transport::{Headers, Session};

/// The largest number of messages of a pull request.
const BATCH: usize = 1_000;
/// About the largest number of bytes that are handed out at a time: reading them must not take as long as a lease.
const BYTES: usize = 1 << 20;
/// Messages without room go back after this time.
const ROOM_PATIENCE: Duration = Duration::from_millis(200);
/// An ingest that was not called for this time takes no messages now.
const SILENCE: Duration = Duration::from_millis(1_500);
/// A request without an answer this long after its expiry was lost.
const ANSWERED: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Inner {
    /// By the id of the consumer.
    pub(super) states: HashMap<Arc<str>, PullState>,
    generation: u64,
    pub(super) notify: Notify,
    is_receiving: bool,
    last_call: Option<Instant>,
    last_alive: Option<Instant>,
    /// The process slept over the messages of this session and of earlier ones.
    stale: u64,
    pub(super) problem: Option<BackendError>,
    /// A consumer or its stream may be missing.
    pub(super) is_in_doubt: bool,
}

/// The buffer of pulled messages.
pub(crate) struct PullBuffer {
    times: LeaseTimes,
    has_partitions: bool,
    pub(super) inner: Mutex<Inner>,
    pub(super) changed: Condvar,
}

/// The start of a task that reads a consumer.
pub(super) struct ReadStart {
    /// Completes when the task should end.
    pub(super) stopped: oneshot::Receiver<()>,
    /// An earlier session has read the consumer.
    pub(super) was_read: bool,
    /// The hand-over's reaction to the new session.
    pub(super) effect: Option<HandoverEffect>,
}

/// A pull request to send.
#[derive(Debug, Clone)]
pub(super) struct Pull {
    pub(super) consumer: Arc<Consumer>,
    pub(super) batch: usize,
}

impl PullBuffer {
    pub(crate) fn new(times: LeaseTimes, has_partitions: bool) -> Self {
        Self { times, has_partitions, inner: Mutex::default(), changed: Condvar::new() }
    }

    pub(super) fn expires(&self) -> Duration {
        self.times.pull_expiry(self.has_partitions)
    }

    /// The ingest begins to receive.
    pub(crate) fn receive_begins(&self) {
        self.inner.lock().is_receiving = true;
    }

    /// The ingest has received.
    pub(crate) fn receive_ended(&self) {
        let mut inner = self.inner.lock();
        inner.is_receiving = false;
        inner.last_call = Some(Instant::now());
    }

    /// Notes that this process is alive. True if it slept so long that messages in transit may belong to other members.
    pub(crate) fn note_alive(&self, generation: u64) -> bool {
        let mut inner = self.inner.lock();
        let has_slept = inner.has_slept(self.times);
        if has_slept {
            inner.forget(generation);
        }
        inner.last_alive = Some(Instant::now());
        has_slept && !inner.states.is_empty()
    }

    /// Drops the messages of a session and of earlier ones, which the process slept over.
    pub(crate) fn forget(&self, generation: u64) {
        self.inner.lock().forget(generation);
    }

    /// The sequences of a consumer's messages that wait here.
    pub(super) fn waiting(&self, id: &str) -> Vec<u64> {
        let inner = self.inner.lock();
        let waiting = inner.states.get(id).map(|state| state.waiting.iter().map(|it| it.delivery.sequence).collect());
        waiting.unwrap_or_default()
    }

    /// The sequences of a consumer's messages that have arrived and do not wait yet.
    pub(super) fn arriving(&self, id: &str) -> Vec<u64> {
        self.inner.lock().states.get(id).map(|state| state.arriving.clone()).unwrap_or_default()
    }

    /// The partitions of a subscription with messages here.
    pub(crate) fn partitions(&self, durable: &str) -> BTreeSet<u32> {
        let inner = self.inner.lock();
        let has_some = |state: &&PullState| {
            state.consumer.durable == durable && !(state.waiting.is_empty() && state.arriving.is_empty())
        };
        inner.states.values().filter(has_some).filter_map(|state| state.consumer.partition).collect()
    }

    /// Whether some messages may not be handed out: they wait for lost ones, or at a barrier.
    pub(crate) fn has_closed_state(&self) -> bool {
        self.inner.lock().states.values().any(|state| !state.is_open())
    }

    /// Whether the streams and consumers should be checked. Clears the flag.
    pub(crate) fn take_doubt(&self) -> bool {
        std::mem::take(&mut self.inner.lock().is_in_doubt)
    }

    /// Takes messages of a subscription's consumers, at most `room`, of each partition at most its room, and no more bytes than one step allows.
    /// Adds the pull requests that fill the room behind them.
    pub(super) fn take(
        &self,
        consumers: &[Arc<Consumer>],
        room: usize,
        rooms: &HashMap<u32, usize>,
        pulls: &mut Vec<Pull>,
    ) -> Vec<(Arc<Consumer>, PulledMessage)> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let (generation, mut bytes) = (inner.generation, 0);
        let mut taken = Vec::new();
        let share = if self.has_partitions { room.div_ceil(consumers.len().max(1)) } else { room };
        for consumer in consumers {
            let state = inner.states.entry(Arc::clone(&consumer.id)).or_insert_with(|| PullState::new(consumer));
            state.roomless = None;
            state.end_transit_wait();
            let most = consumer.partition.map_or(room, |number| rooms.get(&number).copied().unwrap_or(0));
            let most = most.min(room - taken.len());
            let before = taken.len();
            while taken.len() - before < most && bytes < BYTES && state.is_open() {
                let Some(pulled) = state.waiting.pop_front() else { break };
                bytes += pulled.payload.len();
                taken.push((Arc::clone(consumer), pulled));
            }
            let is_overdue = state.requests.outstanding > 0 && now > state.requests.expire_at + ANSWERED;
            if is_overdue {
                state.requests.outstanding = 0;
            }
            let target = state.to_request(share.min(most + before - taken.len())).min(BATCH);
            let requests = &mut state.requests;
            requests.target = target;
            let missing = target.saturating_sub(requests.outstanding);
            // A new session reads the consumer also without room: messages of the one before may have been lost.
            let is_cut_off = state.inbox.is_some() && requests.generation != generation;
            if is_cut_off || missing > 0 && (requests.outstanding == 0 || missing >= target / 2) {
                let batch = missing.max(1);
                requests.outstanding += batch;
                (requests.generation, requests.expire_at) = (generation, now + self.expires());
                pulls.push(Pull { consumer: Arc::clone(consumer), batch });
            }
            inner.is_in_doubt |= is_overdue;
        }
        taken
    }

    /// Takes note of the session: no request of an earlier one is outstanding.
    pub(super) fn note_session(&self, generation: u64) {
        let mut inner = self.inner.lock();
        if inner.generation != generation {
            inner.generation = generation;
            inner.states.values_mut().for_each(|state| state.requests.outstanding = 0);
        }
    }

    /// The last problem. Clears it.
    pub(crate) fn take_problem(&self) -> Option<BackendError> {
        self.inner.lock().problem.take()
    }

    /// The messages to give back: of consumers without room for a while, and of those that are not read any more.
    pub(super) fn take_to_give_back(
        &self,
        is_read: impl Fn(&Consumer) -> bool,
        has_room: impl Fn(&str) -> bool,
    ) -> Vec<GiveBack> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let mut back = Vec::new();
        for state in inner.states.values_mut() {
            let is_read = is_read(&state.consumer);
            if is_read && has_room(&state.consumer.durable) {
                continue;
            }
            let since = *state.roomless.get_or_insert(now);
            if !is_read || now - since >= ROOM_PATIENCE {
                back.extend(state.close());
            }
        }
        inner.states.retain(|_, state| is_read(&state.consumer));
        back
    }

    /// Reads some consumers no more, or anew. Returns the messages to give back.
    pub(crate) fn drop_all(&self, is_dropped: impl Fn(&Consumer) -> bool) -> Vec<GiveBack> {
        let mut inner = self.inner.lock();
        let dropped = inner.states.values_mut().filter(|state| is_dropped(&state.consumer));
        let back = dropped.flat_map(PullState::close).collect();
        inner.states.retain(|_, state| !is_dropped(&state.consumer));
        back
    }

    /// Extends the messages that wait here: returns their acknowledgements.
    pub(crate) fn extensions(&self) -> Vec<Ack> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let mut acks = Vec::new();
        for PullState { consumer, waiting, .. } in inner.states.values_mut() {
            for pulled in waiting {
                pulled.delivery.leased_at = now;
                acks.push(pulled.delivery.ack(consumer, IN_PROGRESS));
            }
        }
        acks
    }

    /// Reports a problem to the ingest.
    pub(crate) fn fail(&self, error: BackendError) {
        self.inner.lock().problem = Some(error);
        self.changed.notify_all();
    }

    /// The inbox of a consumer. If no task reads the consumer in this session, also registers one and returns its duties; the hand-over gets
    /// [`HandoverEvent::Connected`].
    pub(super) fn register_reader(&self, session: &Session, id: &str) -> Option<(Subject, Option<ReadStart>)> {
        let mut inner = self.inner.lock();
        let state = inner.states.get_mut(id)?;
        let was_read = state.inbox.is_some();
        let inbox = state.inbox.get_or_insert_with(|| session.new_inbox()).clone();
        if state.reader.as_ref().is_some_and(|reader| reader.generation == session.generation) {
            return Some((inbox, None));
        }
        let (stop, stopped) = oneshot::channel();
        state.reader = Some(ReaderHandle { generation: session.generation, _stop: stop });
        // The messages whose history an earlier task was reading are lost with it.
        state.arriving.clear();
        let effect = state.on(HandoverEvent::Connected);
        state.begin_transit_wait();
        Some((inbox, Some(ReadStart { stopped, was_read, effect })))
    }

    /// These pull requests could not be sent.
    pub(super) fn pulls_failed(&self, pulls: &[Pull], error: BackendError) {
        let mut inner = self.inner.lock();
        for pull in pulls {
            if let Some(PullState { requests, .. }) = inner.states.get_mut(&pull.consumer.id) {
                (requests.outstanding, requests.generation) = (requests.outstanding.saturating_sub(pull.batch), 0);
            }
        }
        drop(inner);
        self.fail(error);
    }

    /// The task of a consumer could not begin.
    pub(super) fn read_failed(&self, id: &str) {
        if let Some(state) = self.inner.lock().states.get_mut(id) {
            (state.reader, state.requests.generation) = (None, 0);
        }
    }

    /// Messages of a consumer have arrived, and their history is being read.
    pub(super) fn note_arriving(&self, id: &str, sequences: Vec<u64>) {
        if let Some(state) = self.inner.lock().states.get_mut(id) {
            state.arriving = sequences;
        }
    }

    /// Adds messages that have arrived. Returns them if the ingest takes none now.
    pub(super) fn put(&self, id: &str, pulled: Vec<PulledMessage>, generation: u64) -> Vec<PulledMessage> {
        let mut inner = self.inner.lock();
        if generation <= inner.stale || inner.has_slept(self.times) {
            // They may belong to other members by now. Without partitions a give-back would take them away, so they come again when their leases
            // have expired.
            return Vec::new();
        }
        let is_silent = inner.is_silent();
        match inner.states.get_mut(id) {
            Some(state) if !is_silent => {
                state.add(pulled);
                if !state.is_open() {
                    inner.notify();
                }
                drop(inner);
                self.changed.notify_all();
                Vec::new()
            }
            Some(state) => {
                state.stop_reading();
                pulled
            }
            None => pulled,
        }
    }

    /// A pull request has ended. Returns the number of messages to request at once, if the ingest waits for them.
    pub(super) fn request_ended(&self, id: &str, headers: &Headers) -> Option<usize> {
        let mut inner = self.inner.lock();
        let left = headers.get("Nats-Pending-Messages").and_then(|value| value.parse().ok());
        let is_time_out = headers.status().is_some_and(|status| [404, 408].contains(&status));
        let is_receiving = inner.is_receiving;
        inner.is_in_doubt |= !is_time_out;
        let state = inner.states.get_mut(id)?;
        let requests = &mut state.requests;
        requests.outstanding = requests.outstanding.saturating_sub(left.unwrap_or(requests.outstanding));
        if is_time_out && is_receiving && requests.outstanding == 0 && requests.target > 0 && state.waiting.is_empty() {
            (requests.outstanding, requests.expire_at) = (requests.target, Instant::now() + self.expires());
            return Some(requests.target);
        }
        inner.notify();
        drop(inner);
        self.changed.notify_all();
        None
    }

    /// Whether the ingest was not called for a while.
    pub(crate) fn is_silent(&self) -> bool {
        self.inner.lock().is_silent()
    }
}

impl Inner {
    fn forget(&mut self, generation: u64) {
        self.stale = generation;
        self.states.values_mut().for_each(|state| state.waiting.clear());
    }

    fn is_silent(&self) -> bool {
        !self.is_receiving && self.last_call.is_none_or(|at| at.elapsed() > SILENCE)
    }

    fn has_slept(&self, times: LeaseTimes) -> bool {
        self.last_alive.is_some_and(|at| times.has_slept(at))
    }
}
