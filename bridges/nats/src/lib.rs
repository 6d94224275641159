//! Durable events for [`eventbroker`] across instances, on NATS JetStream.
//!
//! Every instance publishes its events into one stream and reads them from a durable consumer for each of its subscriptions. What a publish
//! has accepted is a message of the stream; it is acknowledged when its handler has settled. The stream, its subjects and headers are those
//! of ResolveSpec's event broker, so that both can share a stream.
//!
//! ```no_run
//! use eventbroker::{Broker, Event, Source, SubscribeOptions};
//! use eventbroker_nats::Nats;
//!
//! let broker = Broker::builder().provider(Nats::new("nats://localhost").open()?).start()?;
//! broker.subscribe_with(SubscribeOptions::new("shop.orders.*").name("mailer"), |delivery| {
//!     println!("{}", delivery.event().id());
//! })?;
//! broker.publish(Event::builder(Source::System, "shop.orders.create").build()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The client of NATS is asynchronous; it lives on one thread of the provider, and nothing of it is seen from outside. What is kept on which
//! subject, the rights that a user needs, and what survives what, is in `docs/nats.md`. The floor is nats-server 2.9.
//!
//! Members of a group compete for the stream, so the events of a key are in order within an instance; across instances with
//! [`Nats::partitions`].

mod client;
mod connection;
mod division;
mod ends;
mod entry;
mod floors;
mod holds;
mod ingest;
mod intake;
mod js;
mod leader;
mod leases;
mod line;
mod members;
mod mirror;
mod names;
mod operator;
mod owners;
mod progress;
mod range;
mod reader;
mod recent;
mod registry;
mod router;
mod runtime;
mod settings;
mod settler;
mod shares;
mod socket;
mod source;
mod state;
mod status;
mod store;
mod stream;
mod tail;
mod tap;
mod tls;
mod turns;
mod unconfirmed;
mod upkeep;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::{BackendError, Capabilities, Provider};

use connection::Database;

/// On what the server keeps the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// Files.
    #[default]
    File,
    /// Its memory: what it holds is gone when it ends.
    Memory,
}

/// What is written down of the events' statuses, beside what the consumers tell by themselves: what is open, and what was handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Also when each subscription has handled an event: a note per event.
    Full,
    /// What failed, and how often it was retried.
    #[default]
    Failures,
    /// Nothing: what failed for good is told as completed, and found among the dead letters.
    Off,
}

/// The settings of a provider on a NATS server with JetStream.
#[derive(Clone)]
#[must_use]
pub struct Nats {
    url: String,
    stream_name: String,
    subject_prefix: String,
    consumer_group: String,
    storage: Storage,
    replicas: usize,
    max_age: Duration,
    max_messages: u64,
    max_bytes: u64,
    adopt_stream: bool,
    lease_time: Duration,
    dedupe_window: Option<Duration>,
    retention: Duration,
    idle_expiry: Duration,
    user_and_password: Option<(String, String)>,
    token: Option<String>,
    nkey: Option<String>,
    credentials_file: Option<PathBuf>,
    tls_ca_file: Option<PathBuf>,
    partitions: u32,
    adopt_partitions: bool,
    status: Status,
    confirm_acks: bool,
}

/// Why a server could not be used. Shows no password.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its bounds: which, and which bounds.
    Setting(String),
    /// NATS could not be reached, or has refused: its words.
    Server(String),
}

impl Nats {
    /// The server at `url`, `nats://USER:PASSWORD@HOST:PORT`, with every default. Several servers of a cluster are separated by commas.
    /// `tls://` is the same over TLS (feature `tls`); the server's certificate is checked, name included. One of them is enough for all.
    pub fn new(url: impl Into<String>) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            url: url.into(),
            stream_name: "RESOLVESPEC_EVENTS".to_owned(),
            subject_prefix: "events".to_owned(),
            consumer_group: "resolvespec-workers".to_owned(),
            storage: Storage::File,
            replicas: 1,
            max_age: 7 * DAY,
            max_messages: 0,
            max_bytes: 0,
            adopt_stream: false,
            lease_time: Duration::from_secs(30),
            dedupe_window: None,
            retention: 7 * DAY,
            idle_expiry: 7 * DAY,
            user_and_password: None,
            token: None,
            nkey: None,
            credentials_file: None,
            tls_ca_file: None,
            partitions: 0,
            adopt_partitions: false,
            status: Status::default(),
            confirm_acks: false,
        }
    }

    /// The stream of the events; the one beside it is called the same with `_STATE` behind it. Default `RESOLVESPEC_EVENTS`; 1 to 200 bytes,
    /// letters, digits, `-` and `_`.
    pub fn stream_name(mut self, name: impl Into<String>) -> Self {
        self.stream_name = name.into();
        self
    }

    /// What the subjects of the events begin with; those of the stream beside it begin with the same and `-state`. Default `events`; 1 to
    /// 100 bytes, letters, digits, `-` and `_`.
    pub fn subject_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.subject_prefix = prefix.into();
        self
    }

    /// The group that this instance's subscriptions belong to: of the members of a group that have a subscription of the same
    /// name, one handles each event. Default `resolvespec-workers`; 1 to 255 bytes.
    pub fn consumer_group(mut self, group: impl Into<String>) -> Self {
        self.consumer_group = group.into();
        self
    }

    /// On what the streams are kept, if they are to be made. Default [`Storage::File`].
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// On how many servers of a cluster the streams are kept, if they are to be made. Default 1; 1 to 5.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// How long the stream holds an event, whether it was read or not; zero is for ever. Default 7 days.
    pub fn max_age(mut self, time: Duration) -> Self {
        self.max_age = time;
        self
    }

    /// How many messages the stream holds; 0 is no limit. What every subscription has acknowledged makes room; when it is full of what
    /// is not, publishing is refused. Default 0.
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = messages;
        self
    }

    /// The same in bytes. Default 0.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Takes a stream that is there as it is, whatever its settings are. Without this, one with other settings is an error that says how they
    /// differ.
    pub fn adopt_stream(mut self, adopt: bool) -> Self {
        self.adopt_stream = adopt;
        self
    }

    /// How long an event belongs to the member that took it, unless that shows that it is alive, which it does each third of
    /// this. So long it takes until the events of a member that died are handled by another one. Of members with different ones, the longest
    /// counts. Default 30 s; at least 100 ms.
    pub fn lease_time(mut self, time: Duration) -> Self {
        self.lease_time = time;
        self
    }

    /// How long the server knows the id of an event after its publish: so long the same event again is a duplicate. Default 120 s, or
    /// `max_age` if that is shorter; at least 1 s, and at most `max_age`.
    pub fn dedupe_window(mut self, window: Duration) -> Self {
        self.dedupe_window = Some(window);
        self
    }

    /// How long dead letters and what is known of statuses are kept. Default 7 days; at least 1 s.
    pub fn retention(mut self, time: Duration) -> Self {
        self.retention = time;
        self
    }

    /// How long a subscription is kept that no instance serves: then it is removed with what waits for it, logged and counted. Default 7
    /// days; at least 1 s and the lease time.
    pub fn idle_expiry(mut self, time: Duration) -> Self {
        self.idle_expiry = time;
        self
    }

    /// Logs in with these, instead of what the address says.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.user_and_password = Some((user.into(), password.into()));
        self
    }

    /// Logs in with a token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Logs in with the seed of an NKey.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.nkey = Some(seed.into());
        self
    }

    /// Logs in with a file of credentials, which is read when the provider is opened.
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials_file = Some(path.into());
        self
    }

    /// The PEM file with the certificates that a server's at `tls://` is checked with. Default: those of the system.
    pub fn tls_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls_ca_file = Some(path.into());
        self
    }

    /// Into how many parts the stream is divided, by the events' [key](eventbroker::Event::key), or by their id if they have none. Each of
    /// them is handled by one member of a subscription at a time, so the events of a key are in order across instances; members
    /// that come and go share them out again. 0 is the one stream of ResolveSpec, for which members compete. With partitions the subjects begin
    /// with the prefix and `-p` and the number, so that ResolveSpec's broker does not see the events; each subscription has a consumer for each
    /// partition. All instances must say the same, which is written down beside the stream: another number is an error until the stream was
    /// [divided anew](Self::repartition). Default 0; at most 64.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Whether the number of partitions is taken that is written down beside the stream, if there is one: for tools. Default false.
    pub fn adopt_partitions(mut self, adopt: bool) -> Self {
        self.adopt_partitions = adopt;
        self
    }

    /// What is written down of the events' statuses. Default [`Failures`](Status::Failures).
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Has the server answer to the acknowledgement of each delivery, and waits for all answers to a batch before the next one is sent. Else it
    /// answers to the last one of a batch, which it takes behind the others, and up to 8 batches are under way. This costs a message for each
    /// delivery and most of the rate. Default false.
    pub fn confirm_acks(mut self, confirm: bool) -> Self {
        self.confirm_acks = confirm;
        self
    }

    /// Connects, makes the streams if they are not there, and returns a provider for one broker. Waits at most 10 s for a server that does
    /// not answer.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, the server can't be reached or refuses, or the stream has other settings.
    pub fn open(&self) -> Result<Provider, OpenError> {
        self.check()?;
        let settings = if self.adopt_partitions { self.with_known_partitions()? } else { self.clone() };
        let database = Arc::new(Database::new(&settings)?);
        let on_thread = Arc::clone(&database);
        let made = database.runtime.call_long(move |session| async move { stream::make(&session, &on_thread).await });
        made.map_err(OpenError::of)?.map_err(OpenError::Setting)?;
        let capabilities = Capabilities::none().with_durability().with_instances().with_groups().with_broadcast();
        let capabilities = capabilities.with_start_positions().with_durable_broadcast().with_replay().with_tail();
        let capabilities = match settings.partitions {
            0 => capabilities.with_order_per_subscription(),
            _ => capabilities.with_order_per_key(),
        };
        Ok(Provider::new("nats", capabilities)
            .with_store(Arc::new(store::NatsStore::new(&database)))
            .with_operator(Arc::new(operator::NatsOperator::new(&database)))
            .with_mirror(Box::new(mirror::NatsMirror::new(&database)))
            .with_ingest(Box::new(ingest::NatsIngest::new(&database)), Box::new(settler::NatsSettler::new(&database))))
    }

    /// Divides the stream into [`partitions`](Self::partitions), whatever it was before. All instances must have stopped, and everything must
    /// be handled. What was handled before stays, and so do dead letters. Blocks as long as making the consumers anew takes, at most 30 s.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, somebody uses the stream, something waits in it, or the server can't be reached or refuses.
    pub fn repartition(&self) -> Result<(), OpenError> {
        self.check()?;
        let from = Arc::new(Database::new(&self.with_known_partitions()?)?);
        let to = Arc::new(Database::new(self)?);
        let divided = from.runtime.call_long({
            let from = Arc::clone(&from);
            move |session| async move { division::divide(&session, &from, &to).await }
        });
        divided.map_err(OpenError::of)?.map_err(OpenError::Setting)
    }

    /// The same settings with the number of partitions that is written down; with their own if none is.
    fn with_known_partitions(&self) -> Result<Self, OpenError> {
        let database = Arc::new(Database::new(self)?);
        let on_thread = Arc::clone(&database);
        let known = database.runtime.call(move |session| async move { division::known(&session, &on_thread).await });
        let known = known.map_err(OpenError::of)?;
        Ok(self.clone().partitions(known.unwrap_or(self.partitions)))
    }
}

impl Storage {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Memory => "memory",
        }
    }
}

impl OpenError {
    fn of(error: BackendError) -> Self {
        let (BackendError::Unavailable(reason) | BackendError::Refused(reason)) = error else {
            return Self::Server(error.to_string());
        };
        Self::Server(reason)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(problem) | Self::Server(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for OpenError {}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the address, nor how to log in: there are secrets in them.
        f.debug_struct("Nats")
            .field("stream_name", &self.stream_name)
            .field("consumer_group", &self.consumer_group)
            .finish_non_exhaustive()
    }
}
