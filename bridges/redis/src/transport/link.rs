//! One provider's hold on the server: what its parts share, and a connection for each of them. A connection is used by one thread at a time,
//! and dropped after any failure of the network: a late answer would be taken for that of the next question.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use eventbroker::Event;
use eventbroker::provider::{BackendError, Backoff, partition_of};
use parking_lot::Mutex;
use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisError, RedisResult, Value};

use crate::scripts::Script;
use crate::subscriptions::Info;
use crate::transport::socket::{Address, Connection};
#[cfg(feature = "tls")]
use crate::transport::tls::Tls;
use crate::{OpenError, Redis, Status};

/// A connection that was not used for so long may have been cut without a word, and a call should not fail for that.
const IDLE: Duration = Duration::from_secs(2);

/// What all parts of a provider share.
pub(crate) struct Database {
    address: Address,
    /// Where the server is, without secrets.
    pub(crate) place: String,
    backoff: Backoff,
    /// What every key begins with.
    pub(crate) prefix: String,
    /// The streams that events are entries of; their numbers, which count from 1, are told to scripts.
    pub(crate) streams: Vec<String>,
    /// How many of them each have one owner of each subscription; 0 if there is one for all.
    pub(crate) partitions: u32,
    pub(crate) group: String,
    pub(crate) lease_time: Duration,
    pub(crate) dedupe_window: Duration,
    pub(crate) retention: Duration,
    pub(crate) max_len: u64,
    pub(crate) idle_expiry: Duration,
    pub(crate) status: Status,
    /// Entries have the attributes of CloudEvents.
    pub(crate) cloud_events: bool,
    pub(crate) max_backlog: u64,
    /// Some subscription is that far behind.
    pub(crate) is_full: AtomicBool,
    pub(crate) min_replicas: u32,
    pub(crate) replica_timeout: Duration,
    /// Tells this provider from all others.
    pub(crate) boot: String,
    /// What entries are read as: the name of the instance, as soon as it has one.
    pub(crate) member: Mutex<String>,
    /// The subscriptions that this provider serves, by name.
    pub(crate) served: Mutex<HashMap<Arc<str>, Served>>,
    /// The leases that are held.
    pub(crate) leases: Mutex<HashMap<u64, Held>>,
    pub(crate) next_token: AtomicU64,
    /// Subscriptions of which something is given back, by their groups: that goes before what is new.
    pub(crate) released: Mutex<HashSet<Arc<str>>>,
    /// The ingest should look again at once.
    pub(crate) woken: AtomicBool,
}

/// A subscription of this provider.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// What its consumer group is called.
    pub(crate) unit: Arc<str>,
    pub(crate) info: Info,
}

/// A delivery that this provider holds.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) unit: Arc<str>,
    /// The number of its stream; 0 if it was made again.
    pub(crate) number: usize,
    pub(crate) entry: String,
    pub(crate) suspect: bool,
    /// Somebody has removed its entry from the stream: nobody else can have it any more.
    pub(crate) gone: bool,
    /// For its dead letter.
    pub(crate) event: Event,
}

impl Database {
    pub(crate) fn new(settings: &Redis) -> Result<Self, OpenError> {
        // The parser's own words may hold a part of the address, and with it a secret.
        let invalid =
            || OpenError::Setting("url: is not of the form redis://USER:PASSWORD@HOST:PORT/DATABASE".to_owned());
        let is_secret = ["rediss:", "valkeys:"].iter().any(|scheme| settings.url.starts_with(scheme));
        if is_secret && cfg!(not(feature = "tls")) {
            let problem =
                "url: rediss:// needs TLS, which is not compiled in: build eventbroker-redis with the feature `tls`";
            return Err(OpenError::Setting(problem.to_owned()));
        }
        // The client library only takes addresses of what it can connect to by itself.
        let plain = if is_secret { settings.url.replacen("s://", "://", 1) } else { settings.url.clone() };
        let info = plain.as_str().into_connection_info().map_err(|_| invalid())?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => return Err(invalid()),
        };
        match settings.url.split_once('#') {
            Some((_, "insecure")) if is_secret => {
                return Err(OpenError::Setting(
                    "url: #insecure is not offered; name the certificate instead".to_owned(),
                ));
            }
            Some(_) => return Err(invalid()),
            None => {}
        }
        if !is_secret && settings.tls_ca_file.is_some() {
            return Err(OpenError::Setting("tls_ca_file: is only for a rediss:// url".to_owned()));
        }
        let address = Address {
            info,
            #[cfg(feature = "tls")]
            tls: is_secret.then(|| Tls::new(settings.tls_ca_file.as_deref())).transpose()?,
        };
        let name = &settings.stream_name;
        let (prefix, streams) = match settings.partitions {
            0 => (name.clone(), vec![name.clone()]),
            // In braces, so that a cluster keeps all of them in one place.
            partitions => (format!("{{{name}}}"), (0..partitions).map(|it| format!("{{{name}}}:p{it}")).collect()),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (pid, number) = (process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let boot = format!("{pid}-{number}-{:016x}", RandomState::new().hash_one((pid, now)));
        Ok(Self {
            address,
            place: format!("Redis at {place}"),
            backoff: Backoff::default(),
            prefix,
            streams,
            partitions: settings.partitions,
            group: settings.consumer_group.clone(),
            lease_time: settings.lease_time,
            dedupe_window: settings.dedupe_window,
            retention: settings.retention,
            max_len: settings.max_len,
            idle_expiry: settings.idle_expiry,
            status: settings.status,
            cloud_events: settings.cloud_events,
            max_backlog: settings.max_backlog,
            is_full: AtomicBool::new(false),
            min_replicas: settings.min_replicas,
            replica_timeout: settings.replica_timeout,
            member: Mutex::new(boot.clone()),
            boot,
            served: Mutex::default(),
            leases: Mutex::default(),
            next_token: AtomicU64::new(1),
            released: Mutex::default(),
            woken: AtomicBool::new(false),
        })
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    /// The prefix and the streams.
    pub(crate) fn keys(&self) -> Vec<&str> {
        [&self.prefix].into_iter().chain(&self.streams).map(String::as_str).collect()
    }

    /// A key beside the stream.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// Which of the streams an event goes to.
    pub(crate) fn stream_for(&self, event: &Event) -> usize {
        partition_of(event, self.partitions) as usize
    }

    /// The stream that a delivery is an entry of.
    pub(crate) fn stream_of(&self, held: &Held) -> String {
        match held.number {
            0 => self.key(&format!("again:{}", held.unit)),
            number => self.streams[number - 1].clone(),
        }
    }

    /// What is held of a subscription: the number of its stream, and its entry.
    pub(crate) fn in_hand(&self, unit: &str) -> Vec<(usize, String)> {
        let leases = self.leases.lock();
        let held = leases.values().filter(|held| *held.unit == *unit);
        held.map(|held| (held.number, held.entry.clone())).collect()
    }

    pub(crate) fn member(&self) -> String {
        self.member.lock().clone()
    }

    /// What the consumer group of a subscription is called; with the name of whom it belongs to, if it does to one.
    pub(crate) fn unit(&self, name: &str, owner: &str) -> String {
        let encoded = |text: &str| text.replace('%', "%25").replace('.', "%2E").replace('@', "%40");
        let unit = format!("{}.{}", encoded(&self.group), encoded(name));
        if owner.is_empty() { unit } else { format!("{unit}@{}", encoded(owner)) }
    }
}

/// A connection that is made when it is needed.
pub(crate) struct Link {
    database: Arc<Database>,
    connection: Option<Connection>,
    used: Instant,
}

impl Link {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), connection: None, used: Instant::now() }
    }

    /// The connection that there is, if it still is one.
    fn kept(&mut self) -> Option<Connection> {
        let mut connection = self.connection.take()?;
        if self.used.elapsed() >= IDLE {
            // A refusal is an answer, too.
            let answer: RedisResult<Value> = redis::cmd("PING").query(&mut connection);
            if answer.is_err_and(|error| error.code().is_none()) {
                return None;
            }
        }
        Some(connection)
    }

    /// Asks the server something.
    pub(crate) fn call<T>(&mut self, work: impl FnOnce(&mut Connection) -> RedisResult<T>) -> Result<T, BackendError> {
        let kept = self.kept();
        let place = &self.database.place;
        let connect = || self.database.address.connect().map_err(|error| format!("{place}: {}", text(&error)));
        // If the work panics, nobody knows what is still to come.
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.database.backoff.attempt(connect)?,
        };
        let result = work(&mut connection);
        // What the server itself has refused leaves the connection as it was; but if it has become a replica, another one may be
        // found at its address.
        let is_lost = |error: &RedisError| error.code().is_none_or(|code| code == "READONLY");
        if !result.as_ref().is_err_and(is_lost) {
            self.connection = Some(connection);
            self.used = Instant::now();
        }
        result.map_err(|error| backend_error(place, &error))
    }

    /// The same for a question that waits.
    pub(crate) fn wait(
        &mut self,
        work: impl FnOnce(&mut Connection) -> RedisResult<Value>,
    ) -> Result<Value, BackendError> {
        self.call(|connection| match work(connection) {
            // The stream was removed meanwhile.
            Err(error) if error.code() == Some("UNBLOCKED") => Ok(Value::Nil),
            answer => answer,
        })
    }

    /// Runs a script on the streams of another provider.
    pub(crate) fn run_for(
        &mut self,
        database: &Database,
        script: &Script,
        arguments: &[&[u8]],
    ) -> Result<Value, BackendError> {
        let keys = database.keys();
        self.call(|connection| script.run(connection, &keys, arguments))
    }

    /// Runs a script on the streams.
    pub(crate) fn run(&mut self, script: &Script, arguments: &[&[u8]]) -> Result<Value, BackendError> {
        let database = Arc::clone(&self.database);
        let keys = database.keys();
        self.call(|connection| script.run(connection, &keys, arguments))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("place", &self.place).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Whether the server may throw keys away when its memory is full. Who may not ask is not told.
pub(crate) fn check_eviction(connection: &mut Connection) -> RedisResult<Result<(), String>> {
    let info: RedisResult<String> = redis::cmd("INFO").arg("memory").query(connection);
    let policy = match &info {
        Ok(info) => info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(str::trim),
        Err(error) if error.code() == Some("NOPERM") => None,
        Err(_) => return info.map(|_| Ok(())),
    };
    Ok(match policy {
        Some(policy) if policy.starts_with("allkeys-") => Err(format!(
            "the server's maxmemory-policy is {policy}, with which it may throw the stream away; noeviction is required"
        )),
        _ => Ok(()),
    })
}

/// What a failure means: whether it pays to try again.
pub(crate) fn backend_error(place: &str, error: &RedisError) -> BackendError {
    // Gone, full, read-only, without rights for the moment: an operator may put it right.
    BackendError::Unavailable(format!("{place}: {}", text(error)))
}

fn text(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// Milliseconds, as the commands take them.
pub(crate) fn millis(time: Duration) -> String {
    time.as_millis().min(1 << 52).to_string()
}
