//! The settings of the bridge: what a program chooses, the defaults and the bounds.

#[cfg(feature = "client")]
mod hook;
mod lease_times;

use std::path::PathBuf;
use std::time::Duration;

use eventbroker::provider::BackendError;
pub use eventbroker_bridge_kit::settings::Status;
use eventbroker_bridge_kit::settings::{Secret, Settings, Url, at_least};

#[cfg(feature = "client")]
pub(crate) use hook::Hook;
pub(crate) use lease_times::LeaseTimes;

/// Where the server keeps the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// In files.
    #[default]
    File,
    /// In memory: the content is lost when the server ends.
    Memory,
}

eventbroker_bridge_kit::words!(Storage: "file" = Self::File, "memory" = Self::Memory);

eventbroker_bridge_kit::settings! {
    /// The settings of a provider on a NATS server with JetStream.
    pub struct Nats {
        /// The server, or several separated by commas.
        url(no_setter): Url = "nats://localhost:4222", 1 ..= 4_096 bytes, secret;

        /// The stream.
        ///
        /// The bridge keeps its own state in a second stream, with `_STATE` behind this name. The name has letters, digits, `-` and `_`.
        stream_name(into): String = "RESOLVESPEC_EVENTS", 1 ..= 200 bytes;

        /// On what the stream is stored: file or memory.
        storage(word): Storage = "file";

        /// How long the stream holds an event.
        ///
        /// This holds for handled events as for others; zero is for ever.
        max_age: Duration = 7 days, 0 s ..= 3_650 days;

        /// The prefix of the names of durable consumers.
        ///
        /// It is the group of this instance's subscriptions: one member of a group handles each event of a subscription.
        consumer_group(into): String = "resolvespec-workers", 1 ..= 255 bytes;

        /// Messages that the stream holds; 0 is no limit.
        ///
        /// Messages that every subscription has acknowledged make room; a stream that is full of others refuses publishes.
        max_messages: u64 = 0, 0 ..= 9_223_372_036_854_775_807;

        /// On how many servers of a cluster the streams are kept.
        replicas: usize = 1, 1 ..= 5;

        /// An existing stream with other settings is used as it is.
        ///
        /// Without this, such a stream is an error that shows the differences.
        adopt_stream: bool = false;

        /// A lease lasts this long after its last extension; then another member gets the event.
        ///
        /// A member extends its deliveries each third of this time. The events of a member that died go to another member after this
        /// time. If members differ, the longest time counts.
        lease_time: Duration = 30 s, 100 ms ..= 7 days;

        /// The login uses this user instead of the one in the address.
        user(no_setter): Option<String>;

        /// The password of the user.
        password(no_setter): Secret, secret;

        /// A token to log in with.
        token(into): Secret, secret;

        /// The seed of an NKey to log in with.
        nkey(into): Secret, secret;

        /// The login uses this file of credentials.
        ///
        /// The file is read when the provider is opened.
        credentials_file(optional): PathBuf;

        /// The PEM file with the certificates that a server at tls:// is checked with, instead of those of the system.
        tls_ca_file(optional): PathBuf, 1 ..= 4_096 bytes;

        /// The stream has this number of partitions, each with one owner; 0 is one stream for all members.
        ///
        /// The [key](eventbroker::Event::key) of an event, or its id without a key, gives its partition. One member of a subscription owns
        /// a partition at a time, so the events of a key are in order across instances; the members share the partitions again when
        /// others join or leave. With 0, members compete for one stream, as in ResolveSpec. With partitions the subjects begin with the
        /// prefix and `-p` and the number, so ResolveSpec's broker does not see the events; each subscription has a consumer per
        /// partition. The number is recorded beside the stream, and another number is an error until the stream was repartitioned.
        partitions: u32 = 0, 0 ..= 64;

        /// The recorded number of partitions replaces the setting partitions.
        ///
        /// For tools.
        adopt_partitions: bool = false;

        /// Which statuses are recorded: full or failures.
        status(word): Status = "failures";

        /// The first token of the events' subjects.
        ///
        /// The subjects of the second stream begin with this and `-state`. The token has letters, digits, `-` and `_`.
        subject_prefix(into): String = "events", 1 ..= 100 bytes;

        /// The largest size of the stream in bytes; 0 is no limit.
        ///
        /// Messages make room as with [`max_messages`](Self::max_messages).
        max_bytes: u64 = 0, 0 ..= 9_223_372_036_854_775_807;

        /// How long the server knows the id of a published event.
        ///
        /// Within this time the same id is a duplicate. Default 120 s, or `max_age` if that is shorter; at most `max_age`.
        dedupe_window(optional): Duration, 1 s ..= 3_650 days;

        /// How long the bridge keeps dead letters and records of statuses.
        retention: Duration = 7 days, 1 s ..= 3_650 days;

        /// How long an unused subscription is kept.
        ///
        /// The bridge then removes it with its backlog, logs that and counts it. The time is at least the lease time.
        idle_expiry: Duration = 7 days, 1 s ..= 3_650 days;
    }
}

/// Why a provider was not opened. The text shows no password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its bounds, or differs from the stream: the text names the setting.
    #[error("{0}")]
    Setting(String),
    /// The server is unreachable, too old, or has refused: the text has the reason.
    #[error("{0}")]
    Server(String),
}

impl Nats {
    /// The server at `url`, `nats://USER:PASSWORD@HOST:PORT`, with every default.
    ///
    /// Commas separate the servers of a cluster. `tls://` is the same over TLS (feature `tls`); the bridge checks the server's certificate
    /// and its name. One `tls://` address makes TLS mandatory for all of them.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: Url::new(url), ..Self::default() }
    }

    /// Logs in with a user and a password, instead of those in the address.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        (self.user, self.password) = (Some(user.into()), Secret::new(password));
        self
    }

    /// The user and the password that were set.
    pub(crate) fn login(&self) -> Option<(String, String)> {
        self.user.as_ref().map(|user| (user.clone(), self.password.expose().to_owned()))
    }

    /// The moments of a lease.
    pub(crate) fn lease_times(&self) -> LeaseTimes {
        LeaseTimes { lease: self.lease_time }
    }

    /// How long the server knows the id of a published event.
    pub(crate) fn known_for(&self) -> Duration {
        const USUAL: Duration = Duration::from_secs(120);
        self.dedupe_window.unwrap_or(if self.max_age.is_zero() { USUAL } else { self.max_age.min(USUAL) })
    }

    /// Checks the bounds of all settings.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |problem: String| Err(OpenError::Setting(problem));
        let bounds = self.check_bounds();
        let bounds = bounds.and_then(|()| at_least("dedupe_window", self.known_for(), Duration::from_secs(1)));
        // A member marks its subscriptions as used each third of a lease.
        let bounds = bounds.and_then(|()| at_least("idle_expiry", self.idle_expiry, self.lease_time));
        bounds.map_err(OpenError::Setting)?;
        let (age, window) = (self.max_age, self.known_for());
        if !age.is_zero() && age < window {
            return refuse(format!("max_age: is {age:?}, at least dedupe_window ({window:?}) is required"));
        }
        for (name, text) in [("stream_name", &self.stream_name), ("subject_prefix", &self.subject_prefix)] {
            if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                return refuse(format!("{name}: is {text:?}, only letters, digits, - and _ are allowed"));
            }
        }
        Ok(())
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
