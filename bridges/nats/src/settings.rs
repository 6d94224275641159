//! The settings of the bridge: what a program chooses, the defaults and the bounds.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use eventbroker::provider::BackendError;

/// Where the server keeps the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// In files.
    #[default]
    File,
    /// In memory: the content is lost when the server ends.
    Memory,
}

/// Which statuses the bridge records, beside those that follow from the consumers: open and handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Also when each subscription has handled an event: a record per event.
    Full,
    /// Failures, and the number of retries.
    #[default]
    Failures,
}

/// The settings of a provider on a NATS server with JetStream.
#[derive(Clone)]
#[must_use]
pub struct Nats {
    pub(crate) url: String,
    pub(crate) stream_name: String,
    pub(crate) subject_prefix: String,
    pub(crate) consumer_group: String,
    pub(crate) storage: Storage,
    pub(crate) replicas: usize,
    pub(crate) max_age: Duration,
    pub(crate) max_messages: u64,
    pub(crate) max_bytes: u64,
    pub(crate) adopt_stream: bool,
    pub(crate) lease_time: Duration,
    pub(crate) dedupe_window: Option<Duration>,
    pub(crate) retention: Duration,
    pub(crate) idle_expiry: Duration,
    pub(crate) user_and_password: Option<(String, String)>,
    pub(crate) token: Option<String>,
    pub(crate) nkey: Option<String>,
    pub(crate) credentials_file: Option<PathBuf>,
    pub(crate) tls_ca_file: Option<PathBuf>,
    pub(crate) partitions: u32,
    pub(crate) adopt_partitions: bool,
    pub(crate) status: Status,
}

/// Why a provider was not opened. The text shows no password.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its bounds, or differs from the stream: the text names the setting.
    Setting(String),
    /// The server is unreachable, too old, or has refused: the text has the reason.
    Server(String),
}

impl Nats {
    /// The server at `url`, `nats://USER:PASSWORD@HOST:PORT`, with every default.
    ///
    /// Commas separate the servers of a cluster. `tls://` is the same over TLS (feature `tls`); the bridge checks the server's certificate
    /// and its name. One `tls://` address makes TLS mandatory for all of them.
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
        }
    }

    /// The stream of the events. The bridge keeps its own state in a second stream, with `_STATE` behind this name. Default
    /// `RESOLVESPEC_EVENTS`; 1 to 200 bytes, letters, digits, `-` and `_`.
    pub fn stream_name(mut self, name: impl Into<String>) -> Self {
        self.stream_name = name.into();
        self
    }

    /// The first token of the events' subjects. The subjects of the second stream begin with this and `-state`. Default `events`; 1 to 100
    /// bytes, letters, digits, `-` and `_`.
    pub fn subject_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.subject_prefix = prefix.into();
        self
    }

    /// The group of this instance's subscriptions: one member of a group handles each event of a subscription. Default
    /// `resolvespec-workers`; 1 to 255 bytes.
    pub fn consumer_group(mut self, group: impl Into<String>) -> Self {
        self.consumer_group = group.into();
        self
    }

    /// Where the server keeps new streams. Default [`Storage::File`].
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// The number of servers of a cluster that keep new streams. Default 1; 1 to 5.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// How long the stream keeps an event, handled or not; zero is for ever. Default 7 days.
    pub fn max_age(mut self, time: Duration) -> Self {
        self.max_age = time;
        self
    }

    /// The largest number of messages in the stream; 0 is no limit. Messages that every subscription has acknowledged make room; a stream
    /// that is full of others refuses publishes. Default 0.
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = messages;
        self
    }

    /// The largest size of the stream in bytes, as [`max_messages`](Self::max_messages). Default 0.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Takes an existing stream as it is. Without this, a stream with other settings is an error that shows the differences.
    pub fn adopt_stream(mut self, adopt: bool) -> Self {
        self.adopt_stream = adopt;
        self
    }

    /// How long a delivery belongs to a member without an extension. A member extends its deliveries each third of this time. The events of
    /// a member that died go to another member after this time. If members differ, the longest time counts. Default 30 s; at least 100 ms.
    pub fn lease_time(mut self, time: Duration) -> Self {
        self.lease_time = time;
        self
    }

    /// How long the server knows the id of a published event: within this time the same id is a duplicate. Default 120 s, or `max_age` if
    /// that is shorter; at least 1 s, and at most `max_age`.
    pub fn dedupe_window(mut self, window: Duration) -> Self {
        self.dedupe_window = Some(window);
        self
    }

    /// How long the bridge keeps dead letters and records of statuses. Default 7 days; at least 1 s.
    pub fn retention(mut self, time: Duration) -> Self {
        self.retention = time;
        self
    }

    /// How long an unused subscription is kept. The bridge then removes it with its backlog, logs that and counts it. Default 7 days; at
    /// least 1 s and the lease time.
    pub fn idle_expiry(mut self, time: Duration) -> Self {
        self.idle_expiry = time;
        self
    }

    /// Logs in with a user and a password, instead of those in the address.
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

    /// Logs in with a credentials file, read when the provider is opened.
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials_file = Some(path.into());
        self
    }

    /// The PEM file with the root certificates for servers at `tls://`. Default: those of the system.
    pub fn tls_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls_ca_file = Some(path.into());
        self
    }

    /// The number of partitions of the stream. Default 0; at most 64.
    ///
    /// The [key](eventbroker::Event::key) of an event, or its id without a key, gives its partition. One member of a subscription owns a
    /// partition at a time, so the events of a key are in order across instances; the members share the partitions again when others join or
    /// leave. With 0, members compete for one stream, as in ResolveSpec. With partitions the subjects begin with the prefix and `-p` and the
    /// number, so ResolveSpec's broker does not see the events; each subscription has a consumer per partition. The number is recorded beside
    /// the stream, and another number is an error until the stream was [repartitioned](Self::repartition).
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Takes the recorded number of partitions, if there is one: for tools. Default false.
    pub fn adopt_partitions(mut self, adopt: bool) -> Self {
        self.adopt_partitions = adopt;
        self
    }

    /// Which statuses the bridge records. Default [`Failures`](Status::Failures).
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// How long the server knows the id of a published event.
    pub(crate) fn known_for(&self) -> Duration {
        const USUAL: Duration = Duration::from_secs(120);
        self.dedupe_window.unwrap_or(if self.max_age.is_zero() { USUAL } else { self.max_age.min(USUAL) })
    }

    /// Checks the bounds of all settings.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |problem: String| Err(OpenError::Setting(problem));
        let least = [
            ("lease_time", self.lease_time, Duration::from_millis(100)),
            ("dedupe_window", self.known_for(), Duration::from_secs(1)),
            ("retention", self.retention, Duration::from_secs(1)),
            // A member marks its subscriptions as used each third of a lease.
            ("idle_expiry", self.idle_expiry, self.lease_time.max(Duration::from_secs(1))),
        ];
        if let Some((name, is, least)) = least.into_iter().find(|(_, is, least)| is < least) {
            return refuse(format!("{name}: is {is:?}, at least {least:?} is required"));
        }
        let (age, window) = (self.max_age, self.known_for());
        if !age.is_zero() && age < window {
            return refuse(format!("max_age: is {age:?}, at least dedupe_window ({window:?}) is required"));
        }
        let texts = [
            ("stream_name", &self.stream_name, 200),
            ("subject_prefix", &self.subject_prefix, 100),
            ("consumer_group", &self.consumer_group, 255),
        ];
        for (name, text, most) in texts {
            let length = text.len();
            if !(1..=most).contains(&length) {
                return refuse(format!("{name}: is {length} bytes long, 1 to {most} are allowed"));
            }
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if name != "consumer_group" && !text.bytes().all(is_token) {
                return refuse(format!("{name}: is {text:?}, only letters, digits, - and _ are allowed"));
            }
        }
        if self.partitions > 64 {
            return refuse(format!("partitions: is {}, at most 64 is allowed", self.partitions));
        }
        if !(1..=5).contains(&self.replicas) {
            return refuse(format!("replicas: is {}, 1 to 5 are allowed", self.replicas));
        }
        Ok(())
    }
}

impl Storage {
    /// The word of the JetStream API.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Memory => "memory",
        }
    }
}

impl From<BackendError> for OpenError {
    fn from(error: BackendError) -> Self {
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
        // The address and the logins hold secrets.
        f.debug_struct("Nats")
            .field("stream_name", &self.stream_name)
            .field("consumer_group", &self.consumer_group)
            .finish_non_exhaustive()
    }
}

/// A call from a room to one above it, which the assembly sets.
pub(crate) struct Hook<A, R = ()>(Box<dyn Fn(A) -> R + Send + Sync>);

impl<A, R> Hook<A, R> {
    pub(crate) fn new(call: impl Fn(A) -> R + Send + Sync + 'static) -> Self {
        Self(Box::new(call))
    }

    pub(crate) fn call(&self, argument: A) -> R {
        (self.0)(argument)
    }
}

impl<A, R> fmt::Debug for Hook<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
