//! What comes in: for each consumer a task on the bridge thread takes the messages that were asked for, and puts them where the ingest finds
//! them. It asks for no more than there is room for, and what nobody takes in time goes back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Message, Subject, Subscriber};
use eventbroker::provider::BackendError;
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use futures_util::StreamExt as _;
use parking_lot::{Condvar, Mutex};

use crate::connection::Database;
use crate::js::{Ack, Entry, Standing};
use crate::leases::{self, Note};
use crate::members;
use crate::registry::{self, Leg};
use crate::runtime::Session;

/// Messages that are asked for at a time, at most.
const BATCH: usize = 1_000;
/// Messages that are taken at a time.
const CHUNK: usize = 256;
/// What was asked for and there is no room for goes back after this.
const PATIENCE: Duration = Duration::from_millis(200);
/// An ingest that was not called for so long does not take anything at the moment.
const SILENCE: Duration = Duration::from_millis(1_500);
/// So long after its end a request was surely answered.
const ANSWERED: Duration = Duration::from_secs(1);

/// A message that was delivered, and waits to be taken.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) entry: Entry,
    pub(crate) reply: Subject,
    pub(crate) delivered: u64,
    /// An earlier lease on it was lost.
    pub(crate) suspect: bool,
    /// What is noted of its earlier leases, and whether something is.
    pub(crate) note: Note,
    pub(crate) noted: bool,
    /// When its lease began, or was extended.
    fresh: Instant,
}

/// A consumer that messages are asked of.
#[derive(Debug)]
struct Source {
    leg: Arc<Leg>,
    unit: String,
    /// How many were asked for and have not come.
    outstanding: usize,
    /// How many are to be asked for.
    target: usize,
    /// When the last request has ended.
    until: Instant,
    waiting: VecDeque<Arrived>,
    /// What has come, and is looked at.
    arriving: Vec<u64>,
    /// Since when there is no room for it.
    roomless: Option<Instant>,
    reader: Option<Reader>,
    /// Where its messages go, also on the next connection: what was asked for on the one before is not lost.
    inbox: Option<Subject>,
    /// What was on its way when the connection was lost comes before anything else.
    hold: Option<Hold>,
}

/// Why nothing is handed out for a moment.
#[derive(Debug)]
struct Hold {
    /// It is not known yet what was lost.
    is_open: bool,
    lost: HashSet<u64>,
    until: Instant,
}

/// The task that takes its messages.
#[derive(Debug)]
struct Reader {
    generation: u64,
    /// Ends it, when it is dropped.
    _stop: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Inner {
    sources: HashMap<String, Source>,
    generation: u64,
    is_woken: bool,
    is_receiving: bool,
    last_call: Option<Instant>,
    /// When this process has last shown that it lives.
    last_beat: Option<Instant>,
    /// What comes on this connection, or an earlier one, was on its way while this process slept.
    stale: u64,
    problem: Option<BackendError>,
    /// Some consumer, or its stream, is not there.
    is_in_doubt: bool,
}

/// Where what comes in is found.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    inner: Mutex<Inner>,
    heard: Condvar,
}

/// What is to be asked of a consumer.
#[derive(Debug, Clone)]
pub(crate) struct Pull {
    key: String,
    leg: Arc<Leg>,
    batch: usize,
}

/// A message that nobody takes.
#[derive(Debug, Clone)]
pub(crate) struct Unwanted {
    pub(crate) unit: String,
    pub(crate) again: bool,
    pub(crate) consumer: String,
    pub(crate) arrived: Arrived,
}

/// How long a request lasts: a member that is frozen gets for so long what another one could handle.
fn expires(database: &Database) -> Duration {
    database.settings.lease_time.clamp(Duration::from_secs(1), Duration::from_secs(5))
}

impl Intake {
    /// Somebody wants the ingest to look again.
    pub(crate) fn wake(&self) {
        self.inner.lock().is_woken = true;
        self.heard.notify_all();
    }

    /// Something has changed.
    pub(crate) fn ring(&self) {
        self.heard.notify_all();
    }

    pub(crate) fn begin(&self) {
        self.inner.lock().is_receiving = true;
    }

    pub(crate) fn end(&self) {
        let mut inner = self.inner.lock();
        inner.is_receiving = false;
        inner.last_call = Some(Instant::now());
    }

    /// This process lives. True if it has slept so long that what is on its way may be somebody else's by now.
    pub(crate) fn beat(&self, lease: Duration, generation: u64) -> bool {
        let mut inner = self.inner.lock();
        let has_slept = inner.has_slept(lease);
        if has_slept {
            inner.stale = generation;
        }
        inner.last_beat = Some(Instant::now());
        has_slept
    }

    /// The messages of a consumer that wait here.
    pub(crate) fn waiting(&self, key: &str) -> Vec<u64> {
        let inner = self.inner.lock();
        let Some(source) = inner.sources.get(key) else { return Vec::new() };
        source.waiting.iter().map(|arrived| arrived.entry.sequence).chain(source.arriving.iter().copied()).collect()
    }

    /// Whether something is not handed out although it is here.
    pub(crate) fn is_on_hold(&self) -> bool {
        self.inner.lock().sources.values().any(|source| source.hold.is_some())
    }

    /// Whether somebody should see whether the consumers are there.
    pub(crate) fn is_in_doubt(&self) -> bool {
        std::mem::take(&mut self.inner.lock().is_in_doubt)
    }

    /// Waits until something has come, or somebody calls. True if it should be returned at once.
    pub(crate) fn wait(&self, until: Instant) -> bool {
        let mut inner = self.inner.lock();
        if !inner.is_woken && !inner.has_news() {
            self.heard.wait_until(&mut inner, until);
        }
        std::mem::take(&mut inner.is_woken)
    }

    /// What has come for a subscription, at most `room`, and what to ask for so that there is always something on its way.
    pub(crate) fn take(
        &self,
        unit: &str,
        legs: &[Arc<Leg>],
        room: usize,
        database: &Database,
        pulls: &mut Vec<Pull>,
    ) -> Vec<(Arc<Leg>, Arrived)> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let lease = database.settings.lease_time;
        let mut taken = Vec::new();
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
                inbox: None,
                hold: None,
            });
            source.roomless = None;
            if source.hold.as_ref().is_some_and(|hold| now >= hold.until) {
                source.go_on();
            }
            while taken.len() < room && source.hold.is_none() {
                let Some(arrived) = source.waiting.pop_front() else { break };
                // One that this process has slept over is somebody else's by now.
                if arrived.fresh.elapsed() < lease.mul_f64(0.6) {
                    taken.push((Arc::clone(leg), arrived));
                }
            }
            let is_overdue = source.outstanding > 0 && now > source.until + ANSWERED;
            if is_overdue {
                source.outstanding = 0;
            }
            source.target = (room - taken.len()).saturating_sub(source.waiting.len()).min(BATCH);
            let missing = source.target.saturating_sub(source.outstanding);
            if missing > 0 && (source.outstanding == 0 || missing >= source.target / 2) {
                source.outstanding += missing;
                source.until = now + expires(database);
                pulls.push(Pull { key, leg: Arc::clone(leg), batch: missing });
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
    pub(crate) fn unwanted(&self, is_served: impl Fn(&str) -> bool, has_room: impl Fn(&str) -> bool) -> Vec<Unwanted> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let mut unwanted = Vec::new();
        for source in inner.sources.values_mut() {
            if has_room(&source.unit) && is_served(&source.unit) {
                continue;
            }
            let since = *source.roomless.get_or_insert(now);
            if !is_served(&source.unit) || now - since >= PATIENCE {
                unwanted.extend(source.close());
            }
        }
        inner.sources.retain(|_, source| is_served(&source.unit));
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
                acks.push(Ack { consumer: consumer.clone(), to: arrived.reply.clone(), verb });
            }
        }
        acks
    }

    fn fail(&self, error: BackendError) {
        self.inner.lock().problem = Some(error);
        self.heard.notify_all();
    }

    /// Where the messages of a consumer go on this connection; what stops that, if it has just begun, and whether there was an earlier one
    /// that was lost.
    fn reader(&self, session: &Session, key: &str) -> Option<(Subject, Option<(oneshot::Receiver<()>, bool)>)> {
        let mut inner = self.inner.lock();
        let source = inner.sources.get_mut(key)?;
        let was_read = source.inbox.is_some();
        let inbox = source.inbox.get_or_insert_with(|| Subject::from(session.client.new_inbox())).clone();
        if source.reader.as_ref().is_some_and(|reader| reader.generation == session.generation) {
            return Some((inbox, None));
        }
        let (stop, stopped) = oneshot::channel();
        source.reader = Some(Reader { generation: session.generation, _stop: stop });
        if was_read {
            source.hold = Some(Hold { is_open: true, lost: HashSet::new(), until: Instant::now() + PATIENCE });
        }
        Some((inbox, Some((stopped, was_read))))
    }

    /// What was lost on its way comes back; then everything goes on in its order.
    fn expect(&self, key: &str, lost: HashSet<u64>) {
        if let Some(source) = self.inner.lock().sources.get_mut(key) {
            source.hold = Some(Hold { is_open: false, lost, until: Instant::now() + PATIENCE });
            source.look_at_hold();
        }
        self.heard.notify_all();
    }

    /// The messages of a consumer could not be read.
    fn is_not_read(&self, key: &str) {
        if let Some(source) = self.inner.lock().sources.get_mut(key) {
            source.reader = None;
        }
    }

    /// Messages of a consumer have come; they are looked at before they are put down.
    fn note_arriving(&self, key: &str, sequences: Vec<u64>) {
        if let Some(source) = self.inner.lock().sources.get_mut(key) {
            source.arriving = sequences;
        }
    }

    /// Puts down what has come. Returns it if nobody takes it at the moment.
    fn put(&self, key: &str, arrived: Vec<Arrived>, lease: Duration, generation: u64) -> Vec<Arrived> {
        let mut inner = self.inner.lock();
        if generation <= inner.stale || inner.has_slept(lease) {
            // Who gives it back may take it from somebody else. It comes again when its lease has ended.
            return Vec::new();
        }
        let is_silent = !inner.is_receiving && inner.last_call.is_none_or(|at| at.elapsed() > SILENCE);
        match inner.sources.get_mut(key) {
            Some(source) if !is_silent => {
                source.arriving.clear();
                source.outstanding = source.outstanding.saturating_sub(arrived.len());
                if let Some(hold) = &mut source.hold {
                    arrived.iter().for_each(|it| _ = hold.lost.remove(&it.entry.sequence));
                }
                source.waiting.extend(arrived);
                source.look_at_hold();
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
    fn ended(&self, key: &str, message: &Message, expires: Duration) -> Option<usize> {
        let mut inner = self.inner.lock();
        let left = message.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
        let left = left.and_then(|value| value.as_str().parse().ok());
        let is_time_out = message.status.is_some_and(|status| [404, 408].contains(&status.as_u16()));
        let is_waiting = inner.is_receiving;
        inner.is_in_doubt |= !is_time_out;
        let source = inner.sources.get_mut(key)?;
        source.outstanding = source.outstanding.saturating_sub(left.unwrap_or(source.outstanding));
        if is_time_out && is_waiting && source.outstanding == 0 && source.waiting.is_empty() && source.target > 0 {
            source.outstanding = source.target;
            source.until = Instant::now() + expires;
            return Some(source.target);
        }
        drop(inner);
        self.heard.notify_all();
        None
    }
}

impl Inner {
    fn has_slept(&self, lease: Duration) -> bool {
        self.last_beat.is_some_and(|at| at.elapsed() > lease.mul_f64(0.7))
    }

    fn has_news(&self) -> bool {
        self.problem.is_some() || self.is_in_doubt || self.sources.values().any(|source| source.hold.is_none() && !source.waiting.is_empty() && source.target > 0)
    }
}

impl Source {
    /// Goes on when everything is back; nothing is missing only after it was told what is.
    fn look_at_hold(&mut self) {
        if self.hold.as_ref().is_some_and(|hold| hold.lost.is_empty() && !hold.is_open) {
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        self.hold = None;
        self.waiting.make_contiguous().sort_by_key(|arrived| arrived.entry.sequence);
    }

    fn close(&mut self) -> Vec<Unwanted> {
        (self.reader, self.inbox, self.hold) = (None, None, None);
        self.outstanding = 0;
        let unwanted = |arrived| Unwanted {
            unit: self.unit.clone(),
            again: self.leg.again,
            consumer: self.leg.ack_name(),
            arrived,
        };
        self.waiting.drain(..).map(unwanted).collect()
    }
}

/// Asks consumers for messages.
pub(crate) fn ask(database: &Arc<Database>, pulls: Vec<Pull>) {
    let on_thread = Arc::clone(database);
    database.runtime.post(move |session| match session {
        Ok(session) => Some(Box::pin(async move {
            for pull in pulls {
                if let Err(error) = ask_one(&session, &on_thread, &pull).await {
                    on_thread.intake.fail(error);
                    return;
                }
            }
        })),
        Err(error) => {
            on_thread.intake.fail(error);
            None
        }
    });
}

async fn ask_one(session: &Session, database: &Arc<Database>, pull: &Pull) -> Result<(), BackendError> {
    let Some((inbox, stopped)) = database.intake.reader(session, &pull.key) else { return Ok(()) };
    if let Some((stopped, was_read)) = stopped {
        let begun = begin(session, database, pull, inbox.clone(), stopped, was_read).await;
        if begun.is_err() {
            database.intake.is_not_read(&pull.key);
        }
        begun?;
    }
    send(session, database, &pull.leg, pull.batch, inbox).await
}

/// Begins to take the messages of a consumer on this connection.
async fn begin(
    session: &Session,
    database: &Arc<Database>,
    pull: &Pull,
    inbox: Subject,
    stopped: oneshot::Receiver<()>,
    was_read: bool,
) -> Result<(), BackendError> {
    let subscriber = session.client.subscribe(inbox.clone()).await.map_err(crate::js::unavailable)?;
    let (next, on_thread) = (session.clone(), Arc::clone(database));
    Session::spawn(read(next, on_thread, pull.key.clone(), Arc::clone(&pull.leg), inbox, subscriber, stopped));
    if was_read {
        // From now on nothing is lost any more, so that what is missing was lost before.
        let lost = members::recover(session, database, &pull.leg).await?;
        database.intake.expect(&pull.key, lost);
    }
    Ok(())
}

async fn send(
    session: &Session,
    database: &Database,
    leg: &Leg,
    batch: usize,
    inbox: Subject,
) -> Result<(), BackendError> {
    let (verb, request) = registry::pull(leg, batch, expires(database));
    session.client.publish_with_reply(verb, inbox, request).await.map_err(crate::js::unavailable)
}

/// Takes the messages of a consumer until it is stopped; what comes then goes back.
async fn read(
    session: Session,
    database: Arc<Database>,
    key: String,
    leg: Arc<Leg>,
    inbox: Subject,
    mut subscriber: Subscriber,
    mut stopped: oneshot::Receiver<()>,
) {
    let (unit, lease) = (leg.unit.clone(), database.settings.lease_time);
    let mut is_stopped = false;
    loop {
        let chunk = if is_stopped {
            (&mut subscriber).ready_chunks(CHUNK).next().await
        } else {
            let mut chunks = (&mut subscriber).ready_chunks(CHUNK);
            match select(chunks.next(), &mut stopped).await {
                Either::Left((chunk, _)) => chunk,
                Either::Right(_) => {
                    is_stopped = true;
                    drop(chunks);
                    // What is on its way still comes.
                    if subscriber.drain().await.is_err() {
                        return;
                    }
                    continue;
                }
            }
        };
        let Some(chunk) = chunk else { return };
        let mut arrived = Vec::with_capacity(chunk.len());
        // Only those that come again take long to look at.
        let standings = chunk.iter().filter_map(|it| Standing::of(it.reply.as_ref()?.as_str()));
        let standings: Vec<Standing> = standings.collect();
        if standings.iter().any(|standing| standing.delivered > 1) {
            database.intake.note_arriving(&key, standings.iter().map(|standing| standing.sequence).collect());
        }
        for message in chunk {
            if message.status.is_some() && is_stopped {
                continue;
            }
            if message.status.is_some() {
                if let Some(batch) = database.intake.ended(&key, &message, expires(&database))
                    && send(&session, &database, &leg, batch, inbox.clone()).await.is_err()
                {
                    session.give_up();
                }
                continue;
            }
            match look_at(&session, &database, &leg, message).await {
                Ok(message) => arrived.extend(message),
                // It comes again when its lease has ended.
                Err(error) => database.intake.fail(error),
            }
        }
        if arrived.is_empty() {
            continue;
        }
        let back = if is_stopped { arrived } else { database.intake.put(&key, arrived, lease, session.generation) };
        let unwanted = |arrived| Unwanted { unit: unit.clone(), again: leg.again, consumer: leg.ack_name(), arrived };
        let back: Vec<Unwanted> = back.into_iter().map(unwanted).collect();
        if !back.is_empty()
            && let Err(error) = leases::give_back(&session, &database, back).await
        {
            database.intake.fail(error);
        }
    }
}

/// What is known of a message that was delivered.
async fn look_at(
    session: &Session,
    database: &Database,
    leg: &Leg,
    message: Message,
) -> Result<Option<Arrived>, BackendError> {
    let fresh = Instant::now();
    let Some(reply) = message.reply else { return Ok(None) };
    let Some(standing) = Standing::of(reply.as_str()) else { return Ok(None) };
    let (suspect, note, noted) = if standing.delivered > 1 {
        leases::look_up(session, database, leg, &standing).await?
    } else {
        (false, Note::default(), false)
    };
    let entry = Entry {
        sequence: standing.sequence,
        stored_at: standing.stored_at,
        subject: message.subject,
        headers: message.headers.unwrap_or_default(),
        payload: message.payload,
    };
    Ok(Some(Arrived { entry, reply, delivered: standing.delivered, suspect, note, noted, fresh }))
}
