//! One provider's hold on the server: what its parts share.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_nats::{ServerAddr, Subject};
use eventbroker::provider::BackendError;
use eventbroker::{Event, EventId};
use parking_lot::Mutex;

use crate::floors::Floors;
use crate::intake::Intake;
use crate::js::{self, Ack, Entry, Which};
use crate::leases::Note;
use crate::names;
use crate::registry::{Info, Leg};
use crate::runtime::{Login, Runtime, Session};
use crate::state::State;
use crate::unconfirmed::Unconfirmed;
use crate::{Nats, OpenError, tls};

/// How many places of events are remembered, twice, and how many acknowledged messages of a consumer.
const REMEMBERED: usize = 16_384;
/// How long it is taken for known what time the server has.
const CLOCK_IS_GOOD: Duration = Duration::from_secs(60);

/// What all parts of a provider share.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) runtime: Runtime,
    pub(crate) settings: Nats,
    pub(crate) state: State,
    /// Tells this provider from all others.
    pub(crate) boot: String,
    /// The name of the instance, as soon as it has one.
    pub(crate) member: Mutex<String>,
    /// The subscriptions that this provider serves, by name.
    pub(crate) served: Mutex<HashMap<Arc<str>, Served>>,
    /// The leases that are held.
    pub(crate) leases: Mutex<HashMap<u64, Held>>,
    pub(crate) next_token: AtomicU64,
    pub(crate) intake: Arc<Intake>,
    /// Held while what has come becomes leases: then it is neither here nor there.
    pub(crate) handing_out: Mutex<()>,
    /// The acknowledgements that are under way.
    pub(crate) unconfirmed: Unconfirmed,
    pub(crate) floors: Floors,
    /// A publish was refused because the stream is full.
    pub(crate) is_crowded: AtomicBool,
    places: Mutex<Places>,
    settled: Mutex<HashMap<Arc<str>, Settled>>,
    clock: Mutex<Option<Clock>>,
}

/// A subscription of this provider.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// What its consumers are called.
    pub(crate) unit: String,
    pub(crate) info: Info,
    pub(crate) legs: Vec<Arc<Leg>>,
}

/// A delivery that this provider holds.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// What has delivered it.
    pub(crate) leg: Arc<Leg>,
    /// The subscription's name.
    pub(crate) name: Arc<str>,
    /// How often it was a dead letter before.
    pub(crate) requeues: u32,
    pub(crate) reply: Subject,
    pub(crate) sequence: u64,
    pub(crate) stored_at: SystemTime,
    pub(crate) delivered: u64,
    /// What is noted about its earlier leases, and whether something is.
    pub(crate) note: Note,
    pub(crate) noted: bool,
    /// For its dead letter.
    pub(crate) event: Event,
}

impl Held {
    pub(crate) fn ack(&self, verb: &'static [u8]) -> Ack {
        Ack { consumer: self.leg.ack_name(), to: self.reply.clone(), verb }
    }
}

/// Where events are in the stream, of those that were seen lately.
#[derive(Debug, Default)]
struct Places {
    young: HashMap<EventId, u64>,
    old: HashMap<EventId, u64>,
}

/// The messages of a consumer that this provider has acknowledged of late, and when they were stored.
type Settled = VecDeque<(u64, SystemTime)>;

/// What time the server had at a moment here.
#[derive(Debug, Clone, Copy)]
struct Clock {
    generation: u64,
    server: SystemTime,
    here: Instant,
}

impl Database {
    pub(crate) fn new(settings: &Nats) -> Result<Self, OpenError> {
        // The parser's own words may hold a part of the address, and with it a secret.
        let invalid = || OpenError::Setting("url: is not of the form nats://USER:PASSWORD@HOST:PORT".to_owned());
        let servers: Result<Vec<ServerAddr>, _> =
            settings.url.split(',').map(|url| url.trim().parse::<ServerAddr>()).collect();
        let servers = servers.map_err(|_| invalid())?;
        if servers.iter().any(|server| server.host().is_empty() || server.is_websocket()) {
            return Err(invalid());
        }
        let is_secret = tls::check(&servers, settings)?;
        let places: Vec<String> = servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        let place = format!("NATS at {}", places.join(", "));
        let credentials = match &settings.credentials_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                OpenError::Setting(format!("credentials_file: {} can't be read: {error}", path.display()))
            })?),
            None => None,
        };
        // The client does not look for a login in an address.
        let in_url =
            servers.iter().find_map(|server| Some((decoded(server.username()?), server.password().map(decoded))));
        let (user_and_password, token) = match in_url {
            Some((user, Some(password))) => (Some((user, password)), None),
            Some((token, None)) => (None, Some(token)),
            None => (None, None),
        };
        // It shows addresses in its traces, so it gets them without.
        let plain = |server: &ServerAddr| {
            let (scheme, host) = (if server.tls_required() { "tls" } else { "nats" }, server.host());
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            format!("{scheme}://{host}:{}", server.port()).parse().map_err(|_| invalid())
        };
        let servers = servers.iter().map(plain).collect::<Result<Vec<ServerAddr>, OpenError>>()?;
        let login = Login {
            user_and_password: settings.user_and_password.clone().or(user_and_password),
            token: settings.token.clone().or(token),
            nkey: settings.nkey.clone(),
            credentials,
            tls: is_secret,
            tls_ca_file: settings.tls_ca_file.clone(),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (pid, number) = (process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let boot = format!("{pid}-{number}-{:016x}", RandomState::new().hash_one((pid, now)));
        let name = format!("eventbroker {boot}");
        let runtime = Runtime::start(servers, login, name, place)
            .map_err(|error| OpenError::Server(format!("no thread: {error}")))?;
        let intake = Arc::new(Intake::default());
        let heard = Arc::clone(&intake);
        runtime.on_loss(move || heard.ring());
        Ok(Self {
            runtime,
            state: State {
                stream: format!("{}_STATE", settings.stream_name),
                prefix: format!("{}-state", settings.subject_prefix),
            },
            settings: settings.clone(),
            member: Mutex::new(boot.clone()),
            boot,
            served: Mutex::default(),
            leases: Mutex::default(),
            next_token: AtomicU64::new(1),
            intake,
            handing_out: Mutex::default(),
            unconfirmed: Unconfirmed::default(),
            floors: Floors::default(),
            is_crowded: AtomicBool::new(false),
            places: Mutex::default(),
            settled: Mutex::default(),
            clock: Mutex::default(),
        })
    }

    pub(crate) fn stream(&self) -> &str {
        &self.settings.stream_name
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.settings.subject_prefix
    }

    pub(crate) fn group(&self) -> &str {
        &self.settings.consumer_group
    }

    pub(crate) fn member(&self) -> String {
        self.member.lock().clone()
    }

    /// What the consumers of a subscription are called; with the name of whom it belongs to, if it does to one.
    pub(crate) fn unit(&self, name: &str, owner: &str) -> String {
        names::unit(self.group(), name, owner)
    }

    /// A subscription is served from now on, or others have changed what is known of it.
    pub(crate) fn learn(&self, unit: &str, info: Info) {
        let legs = info.legs(self, unit).into_iter().map(Arc::new).collect();
        let mut served = self.served.lock();
        if let Some(known) = served.values_mut().find(|served| served.unit == unit) {
            (known.info, known.legs) = (info, legs);
        }
    }

    /// Remembers where an event is.
    pub(crate) fn remember(&self, id: &EventId, sequence: u64) {
        let mut places = self.places.lock();
        places.young.insert(id.clone(), sequence);
        if places.young.len() >= REMEMBERED {
            places.old = std::mem::take(&mut places.young);
        }
    }

    pub(crate) fn remembered(&self, id: &EventId) -> Option<u64> {
        let places = self.places.lock();
        places.young.get(id).or_else(|| places.old.get(id)).copied()
    }

    /// The server has heard that these leases have ended.
    pub(crate) fn settle(&self, tokens: &[u64]) {
        let mut leases = self.leases.lock();
        let ended: Vec<Held> = tokens.iter().filter_map(|token| leases.remove(token)).collect();
        drop(leases);
        let mut settled = self.settled.lock();
        for held in ended {
            let of = settled.entry(held.leg.ack_name()).or_default();
            if of.len() >= REMEMBERED {
                of.pop_front();
            }
            of.push_back((held.sequence, held.stored_at));
        }
    }

    /// What was acknowledged of a consumer behind `floor`, up to `last`, of late.
    pub(crate) fn settled(&self, consumer: &str, floor: u64, last: u64) -> HashSet<u64> {
        let settled = self.settled.lock();
        let of = settled.get(consumer).into_iter().flatten().copied();
        of.map(|(sequence, _)| sequence).filter(|sequence| (floor + 1..=last).contains(sequence)).collect()
    }

    /// Whether a message was acknowledged of late. In a stream that was made again, other messages have the same numbers.
    pub(crate) fn is_settled(&self, consumer: &str, sequence: u64, stored_at: SystemTime) -> bool {
        self.settled.lock().get(consumer).is_some_and(|of| of.contains(&(sequence, stored_at)))
    }

    /// Whether a lease on a message is held.
    pub(crate) fn is_in_hand(&self, leg: &Leg, sequence: u64, stored_at: SystemTime) -> bool {
        let is_it = |held: &Held| {
            held.sequence == sequence && held.stored_at == stored_at && held.leg.ack_name() == leg.ack_name()
        };
        self.leases.lock().values().any(is_it)
    }

    /// The server's clock, if it was seen on this connection and lately.
    pub(crate) fn server_time(&self, session: &Session) -> Option<SystemTime> {
        let clock = (*self.clock.lock())?;
        let since = clock.here.elapsed();
        (clock.generation == session.generation && since < CLOCK_IS_GOOD).then(|| clock.server + since)
    }

    /// Something has just been stored.
    pub(crate) fn note_server_time(&self, session: &Session, stored: &Entry) {
        let clock = Clock { generation: session.generation, server: stored.stored_at, here: Instant::now() };
        *self.clock.lock() = Some(clock);
    }

    /// The server's clock, as what this provider has just noted there tells.
    pub(crate) async fn look_at_clock(&self, session: &Session) -> Result<SystemTime, BackendError> {
        let noted = self.state.put(session, &self.state.key("clock", &self.boot), Vec::new()).await?;
        match js::get(session, &self.state.stream, Which::Number(noted)).await? {
            Some(entry) => {
                self.note_server_time(session, &entry);
                Ok(entry.stored_at)
            }
            None => Err(js::unavailable("what was just noted is not there")),
        }
    }
}

/// A part of an address as it was meant.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}
