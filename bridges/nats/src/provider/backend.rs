//! One provider's hold on the server: what its parts share.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_nats::ServerAddr;
use eventbroker::provider::{BackendError, Backoff, partition_of};
use eventbroker::{Event, Pattern};
use parking_lot::Mutex;

use crate::consume::floors::Floors;
use crate::consume::pull_buffer::Intake;
use crate::jetstream::kv::State;
use crate::jetstream::message::{self as js, Ack, Entry, Which};
use crate::jetstream::names;
use crate::partitions::claims::Shares;
use crate::settings::Nats;
use crate::settings::OpenError;
use crate::settle::lease_record::Note;
use crate::settle::pending_acks::Unconfirmed;
use crate::settle::recent_acks::Recent;
use crate::subscriptions::{Info, Leg};
use crate::transport::publish_conn::Line;
use crate::transport::runtime::{Runtime, Session};
use crate::transport::socket::{Address, Login};
use crate::transport::tls;

/// How long it is taken for known what time the server has.
const CLOCK_IS_GOOD: Duration = Duration::from_secs(60);

/// What all parts of a provider share.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) runtime: Runtime,
    /// By which events are published.
    pub(crate) line: Mutex<Line>,
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
    /// Which partitions this provider owns; held while the server is asked about that.
    pub(crate) shares: Mutex<Shares>,
    /// Up to this message the stream was divided in another way: the subjects do not tell what there is.
    pub(crate) divided_after: AtomicU64,
    pub(crate) recent: Recent,
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
    pub(crate) reply: Arc<str>,
    pub(crate) sequence: u64,
    pub(crate) stored_at: SystemTime,
    pub(crate) delivered: u64,
    /// The connection on which it has come.
    pub(crate) generation: u64,
    /// What is noted about its earlier leases, and whether something is.
    pub(crate) note: Note,
    pub(crate) noted: bool,
    /// The server is told of its end.
    pub(crate) is_ending: bool,
    /// When its lease began, or was extended.
    pub(crate) fresh: Instant,
    /// It was extended so late that it may have been given up before.
    pub(crate) is_late: bool,
    /// For its dead letter.
    pub(crate) event: Event,
}

impl Held {
    /// It was extended by a call that began then. If it was late, what is behind it waits until the next time: by then it is told whether it was given up.
    pub(crate) fn extend(&mut self, began: Instant, lease: Duration) {
        self.is_late = !self.is_late && self.fresh.elapsed() >= lease.mul_f64(0.6);
        if !self.is_late {
            self.fresh = began;
        }
    }

    fn known(&self) -> Known {
        (self.leg.ack_name(), self.sequence, self.stored_at)
    }

    pub(crate) fn ack(&self, verb: &'static [u8]) -> Ack {
        Ack { consumer: self.leg.ack_name(), to: Arc::clone(&self.reply), verb, generation: self.generation }
    }
}

/// A message of a consumer. In a stream that was made again, others have the same numbers, but were stored at other times.
pub(crate) type Known = (Arc<str>, u64, SystemTime);

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
            settings.url.expose().split(',').map(|url| url.trim().parse::<ServerAddr>()).collect();
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
            user_and_password: settings.login().or(user_and_password),
            token: settings.token.given().or(token),
            nkey: settings.nkey.given(),
            credentials,
            tls: is_secret,
            tls_ca_file: settings.tls_ca_file.clone(),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (pid, number) = (process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let boot = format!("{pid}-{number}-{:016x}", RandomState::new().hash_one((pid, now)));
        let name = format!("eventbroker {boot}");
        let (address, backoff) = (Arc::new(Address::new(servers, login, name, place)), Arc::new(Backoff::default()));
        let line = Line::new(Arc::clone(&address), Arc::clone(&backoff));
        let runtime =
            Runtime::start(address, backoff).map_err(|error| OpenError::Server(format!("no thread: {error}")))?;
        let intake = Arc::new(Intake::default());
        let heard = Arc::clone(&intake);
        runtime.on_loss(move || heard.ring());
        Ok(Self {
            runtime,
            line: Mutex::new(line),
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
            shares: Mutex::default(),
            divided_after: AtomicU64::new(0),
            recent: Recent::default(),
            clock: Mutex::default(),
        })
    }

    pub(crate) fn stream(&self) -> &str {
        &self.settings.stream_name
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.settings.subject_prefix
    }

    /// Into how many partitions the stream is divided; 0 is one stream that members compete for.
    pub(crate) fn partitions(&self) -> u32 {
        self.settings.partitions
    }

    /// The partition of an event, if the stream is divided.
    pub(crate) fn partition_of(&self, event: &Event) -> Option<u32> {
        (self.partitions() > 0).then(|| partition_of(event, self.partitions()))
    }

    /// What the subjects of the events of a pattern look like, of those that were stored as a message or behind it. Everything, if some
    /// of them may have been stored before the stream was divided as it is.
    pub(crate) fn subjects(&self, pattern: &Pattern, from: u64) -> String {
        if from <= self.divided_after.load(Ordering::SeqCst) {
            return String::new();
        }
        names::filter(&names::events(self.prefix(), self.partitions()), pattern)
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

    /// The server has heard that these leases have ended.
    pub(crate) fn settle(&self, tokens: &[u64]) {
        let mut leases = self.leases.lock();
        let ended: Vec<Held> = tokens.iter().filter_map(|token| leases.remove(token)).collect();
        // Before anybody sees that it is in hand no more.
        self.recent.settle(ended.iter().map(|held| (&*held.leg.unit, held.known())));
        drop(leases);
        if self.partitions() > 0 {
            self.intake.make_room(ended.len());
        }
    }

    /// The messages on which leases are held.
    pub(crate) fn in_hand(&self) -> HashSet<Known> {
        self.leases.lock().values().map(Held::known).collect()
    }

    /// The messages of a consumer on which leases are held, of those that count.
    pub(crate) fn handed_out(&self, leg: &Leg, counts: impl Fn(&Held) -> bool) -> HashSet<u64> {
        let leases = self.leases.lock();
        let of_it = leases.values().filter(|held| held.leg.ack_name() == leg.ack_name() && counts(held));
        of_it.map(|held| held.sequence).collect()
    }

    /// How much of each partition of a subscription is handed out; nothing more may be as long as some of it may soon be given up, because it
    /// was not extended.
    pub(crate) fn handed_out_by_partition(&self, unit: &str) -> HashMap<u32, usize> {
        let patience = self.settings.lease_time / 2;
        let now = Instant::now();
        let mut count = HashMap::new();
        for held in self.leases.lock().values().filter(|held| held.leg.unit == unit) {
            let Some(number) = held.leg.partition else { continue };
            let count: &mut usize = count.entry(number).or_default();
            *count = if now - held.fresh >= patience { usize::MAX } else { count.saturating_add(1) };
        }
        count
    }

    /// The partitions of a subscription of which this provider has something in its hands.
    pub(crate) fn partitions_in_hand(&self, unit: &str) -> BTreeSet<u32> {
        let _all_are_somewhere = self.handing_out.lock();
        let mut partitions = self.intake.partitions(unit);
        let leases = self.leases.lock();
        partitions.extend(leases.values().filter(|held| held.leg.unit == unit).filter_map(|held| held.leg.partition));
        partitions
    }

    /// The server's clock, if it was seen on this connection and lately.
    pub(crate) fn server_time(&self, generation: u64) -> Option<SystemTime> {
        let clock = (*self.clock.lock())?;
        let since = clock.here.elapsed();
        (clock.generation == generation && since < CLOCK_IS_GOOD).then(|| clock.server + since)
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
