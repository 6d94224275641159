//! What has come in: where the [readers](crate::consume::pull_loop) put it and the ingest finds it. No more is asked for than there is room for, and what
//! nobody takes in time goes back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subject;
use eventbroker::provider::BackendError;
use futures_channel::oneshot;
use parking_lot::{Condvar, Mutex};

use crate::consume::pull_loop::expires;
use crate::consume::pull_state::{Arrived, Hold, Reader, Source, Unwanted};
use crate::jetstream::message::{Ack, Standing};
use crate::provider::backend::Database;
use crate::subscriptions::Leg;
use crate::transport::frame::Headers;
use crate::transport::runtime::Session;

use super::notify::Bell;

/// Messages that are asked for at a time, at most.
const BATCH: usize = 1_000;
/// Bytes of messages that are handed out at a time, about: to read them may not take as long as a lease.
const BYTES: usize = 1 << 20;
/// What was asked for and there is no room for goes back after this.
const PATIENCE: Duration = Duration::from_millis(200);
/// So long it waits for what was lost on its way.
pub(super) const HOLD: Duration = Duration::from_secs(1);
/// An ingest that was not called for so long does not take anything at the moment.
const SILENCE: Duration = Duration::from_millis(1_500);
/// So long after its end a request was surely answered.
const ANSWERED: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) sources: HashMap<Arc<str>, Source>,
    generation: u64,
    pub(super) bell: Bell,
    is_receiving: bool,
    last_call: Option<Instant>,
    /// When this process has last shown that it lives.
    last_beat: Option<Instant>,
    /// What comes on this connection, or an earlier one, was on its way while this process slept.
    stale: u64,
    pub(super) problem: Option<BackendError>,
    /// Some consumer, or its stream, is not there.
    pub(super) is_in_doubt: bool,
}

/// Where what comes in is found.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    pub(super) inner: Mutex<Inner>,
    pub(super) heard: Condvar,
}

/// A task that has just begun to take the messages of a consumer.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Comes when it is to end.
    pub(crate) stopped: oneshot::Receiver<()>,
    /// There was an earlier one, whose connection was lost.
    pub(crate) was_read: bool,
}

/// What is to be asked of a consumer.
#[derive(Debug, Clone)]
pub(crate) struct Pull {
    pub(crate) key: Arc<str>,
    pub(crate) leg: Arc<Leg>,
    pub(crate) batch: usize,
}

impl Intake {
    pub(crate) fn begin(&self) {
        self.inner.lock().is_receiving = true;
    }

    pub(crate) fn end(&self) {
        let mut inner = self.inner.lock();
        inner.is_receiving = false;
        inner.last_call = Some(Instant::now());
    }

    /// This process lives. True if it has slept so long that what it has asked for and is on its way may be somebody else's by now.
    pub(crate) fn beat(&self, lease: Duration, generation: u64) -> bool {
        let mut inner = self.inner.lock();
        let has_slept = inner.has_slept(lease);
        if has_slept {
            inner.forget(generation);
        }
        inner.last_beat = Some(Instant::now());
        has_slept && !inner.sources.is_empty()
    }

    /// What has come on a connection, and earlier ones, was slept over.
    pub(crate) fn forget(&self, generation: u64) {
        self.inner.lock().forget(generation);
    }

    /// The messages of a consumer that wait here.
    pub(crate) fn waiting(&self, key: &str) -> Vec<u64> {
        let inner = self.inner.lock();
        let waiting = inner.sources.get(key).map(|source| source.waiting.iter().map(|it| it.entry.sequence).collect());
        waiting.unwrap_or_default()
    }

    /// Those that are looked at before they do.
    pub(crate) fn arriving(&self, key: &str) -> Vec<u64> {
        self.inner.lock().sources.get(key).map(|source| source.arriving.clone()).unwrap_or_default()
    }

    /// Whether somebody should see whether the consumers are there.
    pub(crate) fn is_in_doubt(&self) -> bool {
        std::mem::take(&mut self.inner.lock().is_in_doubt)
    }

    /// What has come for a subscription, at most `room`, of each partition at most its own, and no more than fits into one step; and what to
    /// ask for so that there is always something on its way.
    pub(crate) fn take(
        &self,
        unit: &str,
        legs: &[Arc<Leg>],
        room: usize,
        rooms: &HashMap<u32, usize>,
        database: &Database,
        pulls: &mut Vec<Pull>,
    ) -> Vec<(Arc<Leg>, Arrived)> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let (generation, mut bytes) = (inner.generation, 0);
        let mut taken = Vec::new();
        let share = if database.partitions() > 0 { room.div_ceil(legs.len().max(1)) } else { room };
        for leg in legs {
            let key = leg.ack_name();
            let source = inner.sources.entry(key.clone()).or_insert_with(|| Source {
                leg: Arc::clone(leg),
                unit: unit.to_owned(),
                outstanding: 0,
                target: 0,
                until: now,
                waiting: VecDeque::new(),
                arriving: Vec::new(),
                roomless: None,
                reader: None,
                asked: 0,
                inbox: None,
                hold: None,
                holds: 0,
                last: None,
                spared: HashMap::new(),
            });
            source.roomless = None;
            if matches!(source.hold, Some(Hold::Lost { until, .. }) if now >= until) {
                source.go_on();
            }
            // Each partition has its share of the room.
            let most = leg.partition.map_or(room, |number| rooms.get(&number).copied().unwrap_or(0));
            let most = most.min(room - taken.len());
            let before = taken.len();
            while taken.len() - before < most && bytes < BYTES && source.hold.is_none() {
                let Some(arrived) = source.waiting.pop_front() else { break };
                bytes += arrived.entry.payload.len();
                taken.push((Arc::clone(leg), arrived));
            }
            let is_overdue = source.outstanding > 0 && now > source.until + ANSWERED;
            if is_overdue {
                source.outstanding = 0;
            }
            source.target = source.wanted(share.min(most + before - taken.len())).min(BATCH);
            let missing = source.target.saturating_sub(source.outstanding);
            // On a new connection it has to be read again, also if there is no room: something may have been lost.
            let is_cut_off = source.inbox.is_some() && source.asked != generation;
            if is_cut_off || missing > 0 && (source.outstanding == 0 || missing >= source.target / 2) {
                let batch = missing.max(1);
                source.outstanding += batch;
                source.asked = generation;
                source.until = now + expires(database);
                pulls.push(Pull { key, leg: Arc::clone(leg), batch });
            }
            inner.is_in_doubt |= is_overdue;
        }
        taken
    }

    /// On a new connection nothing is on its way.
    pub(crate) fn see(&self, generation: u64) {
        let mut inner = self.inner.lock();
        if inner.generation != generation {
            inner.generation = generation;
            inner.sources.values_mut().for_each(|source| source.outstanding = 0);
        }
    }

    /// What is wrong, if something is.
    pub(crate) fn problem(&self) -> Option<BackendError> {
        self.inner.lock().problem.take()
    }

    /// What has to go back: of consumers that there has been no room for, or that nobody reads any more.
    pub(crate) fn unwanted(
        &self,
        is_served: impl Fn(&Source) -> bool,
        has_room: impl Fn(&str) -> bool,
    ) -> Vec<Unwanted> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let mut unwanted = Vec::new();
        for source in inner.sources.values_mut() {
            if has_room(&source.unit) && is_served(source) {
                continue;
            }
            let since = *source.roomless.get_or_insert(now);
            if !is_served(source) || now - since >= PATIENCE {
                unwanted.extend(source.close());
            }
        }
        inner.sources.retain(|_, source| is_served(source));
        unwanted
    }

    /// Everything goes back.
    pub(crate) fn close(&self) -> Vec<Unwanted> {
        let sources = std::mem::take(&mut self.inner.lock().sources);
        sources.into_values().flat_map(|mut source| source.close()).collect()
    }

    /// The acknowledgements that extend what waits here.
    pub(crate) fn extensions(&self, verb: &'static [u8]) -> Vec<Ack> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let mut acks = Vec::new();
        for source in inner.sources.values_mut() {
            let consumer = source.leg.ack_name();
            for arrived in &mut source.waiting {
                arrived.fresh = now;
                acks.push(arrived.ack(consumer.clone(), verb));
            }
        }
        acks
    }

    pub(crate) fn fail(&self, error: BackendError) {
        self.inner.lock().problem = Some(error);
        self.heard.notify_all();
    }

    /// Where the messages of a consumer go on this connection; and what there is to do, if that has just begun.
    pub(crate) fn reader(&self, session: &Session, key: &str) -> Option<(Subject, Option<Begun>)> {
        let mut inner = self.inner.lock();
        let source = inner.sources.get_mut(key)?;
        let was_read = source.inbox.is_some();
        let inbox = source.inbox.get_or_insert_with(|| Subject::from(session.client.new_inbox())).clone();
        if source.reader.as_ref().is_some_and(|reader| reader.generation == session.generation) {
            return Some((inbox, None));
        }
        let (stop, stopped) = oneshot::channel();
        source.reader = Some(Reader { generation: session.generation, _stop: stop });
        // What the one before was looking at is lost with it.
        source.arriving.clear();
        source.last = None;
        if source.leg.partition.is_some() {
            source.hold();
        } else if was_read {
            source.hold = Some(Hold::Lost { is_open: true, lost: HashSet::new(), until: Instant::now() + HOLD });
        }
        Some((inbox, Some(Begun { stopped, was_read })))
    }

    /// These consumers could not be asked, so nothing of what was to be asked for comes.
    pub(crate) fn is_not_asked(&self, pulls: &[Pull], error: BackendError) {
        let mut inner = self.inner.lock();
        for pull in pulls {
            if let Some(source) = inner.sources.get_mut(&pull.key) {
                source.outstanding = source.outstanding.saturating_sub(pull.batch);
                source.asked = 0;
            }
        }
        drop(inner);
        self.fail(error);
    }

    /// Whether the messages of a consumer are still to come there.
    pub(crate) fn is_read(&self, key: &str, inbox: &Subject) -> bool {
        self.inner.lock().sources.get(key).is_some_and(|source| source.inbox.as_ref() == Some(inbox))
    }

    /// The messages of a consumer could not be read.
    pub(crate) fn is_not_read(&self, key: &str) {
        if let Some(source) = self.inner.lock().sources.get_mut(key) {
            (source.reader, source.asked) = (None, 0);
        }
    }

    /// Of those that come again, the ones that may have been begun.
    pub(crate) fn begun_before(&self, key: &str, standings: Vec<Standing>) -> Vec<Standing> {
        let inner = self.inner.lock();
        let spared = inner.sources.get(key).map(|source| &source.spared);
        let lost = |it: &Standing| spared.and_then(|spared| spared.get(&it.sequence)).copied().unwrap_or(0);
        standings.into_iter().filter(|it| it.delivered > 1 + lost(it)).collect()
    }

    /// Messages of a consumer have come; they are looked at before they are put down.
    pub(crate) fn note_arriving(&self, key: &str, sequences: Vec<u64>) {
        if let Some(source) = self.inner.lock().sources.get_mut(key) {
            source.arriving = sequences;
        }
    }

    /// Puts down what has come. Returns it if nobody takes it at the moment.
    pub(crate) fn put(&self, key: &str, arrived: Vec<Arrived>, lease: Duration, generation: u64) -> Vec<Arrived> {
        let mut inner = self.inner.lock();
        if generation <= inner.stale || inner.has_slept(lease) {
            // Who gives it back may take it from somebody else. It comes again when its lease has ended.
            return Vec::new();
        }
        let is_silent = inner.is_silent();
        match inner.sources.get_mut(key) {
            Some(source) if !is_silent => {
                source.arriving.clear();
                source.outstanding = source.outstanding.saturating_sub(arrived.len());
                if let Some(Hold::Lost { lost, .. }) = &mut source.hold {
                    arrived.iter().for_each(|it| _ = lost.remove(&it.entry.sequence));
                }
                source.count(&arrived);
                source.waiting.extend(arrived);
                source.look_at_hold();
                if source.hold.is_some() {
                    inner.ring();
                }
                drop(inner);
                self.heard.notify_all();
                Vec::new()
            }
            Some(source) => {
                (source.reader, source.inbox, source.hold) = (None, None, None);
                source.outstanding = 0;
                arrived
            }
            None => arrived,
        }
    }

    /// A request has ended. Returns how many to ask for at once, if somebody waits for them.
    pub(crate) fn ended(&self, key: &str, headers: &Headers, expires: Duration) -> Option<usize> {
        let mut inner = self.inner.lock();
        let left = headers.get("Nats-Pending-Messages").and_then(|value| value.parse().ok());
        let is_time_out = headers.status().is_some_and(|status| [404, 408].contains(&status));
        let is_waiting = inner.is_receiving;
        inner.is_in_doubt |= !is_time_out;
        let source = inner.sources.get_mut(key)?;
        source.outstanding = source.outstanding.saturating_sub(left.unwrap_or(source.outstanding));
        if is_time_out && is_waiting && source.outstanding == 0 && source.waiting.is_empty() && source.target > 0 {
            source.outstanding = source.target;
            source.until = Instant::now() + expires;
            return Some(source.target);
        }
        inner.ring();
        drop(inner);
        self.heard.notify_all();
        None
    }
}

impl Inner {
    fn forget(&mut self, generation: u64) {
        self.stale = generation;
        self.sources.values_mut().for_each(|source| source.waiting.clear());
    }

    pub(super) fn is_silent(&self) -> bool {
        !self.is_receiving && self.last_call.is_none_or(|at| at.elapsed() > SILENCE)
    }

    fn has_slept(&self, lease: Duration) -> bool {
        self.last_beat.is_some_and(|at| at.elapsed() > lease.mul_f64(0.7))
    }
}
