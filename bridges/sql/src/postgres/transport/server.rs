//! One server of an address, and the attempts to connect to it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::Backoff;
use parking_lot::Mutex;
use postgres::config::{Host, SslMode, TargetSessionAttrs};
use postgres::{Client, Config, Error, NoTls};

use super::bounded::{SILENCE, within};
use super::error;
#[cfg(feature = "tls")]
use super::tls;

/// An attempt to connect that has waited for this long shows the others that the server stands still.
const HESITATION: Duration = Duration::from_secs(5);
/// How long sent data may stay unanswered.
const UNANSWERED: Duration = Duration::from_secs(5);

/// How the servers of an address are connected to.
#[derive(Clone)]
pub(crate) struct Manner {
    /// Only a server that can be written to will do.
    pub(crate) is_writable: bool,
    /// TLS, if the address asks for it.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tls::Connector>,
    #[cfg(not(feature = "tls"))]
    pub(crate) tls: Option<()>,
}

/// One server.
pub(crate) struct Server {
    config: Config,
    manner: Manner,
    /// Each attempt that has not ended holds a clone.
    attempts: Arc<()>,
    /// When the last attempt began, until one is answered.
    asked_at: Mutex<Option<Instant>>,
}

impl Server {
    /// The server number `index` of a configuration that may have several.
    pub(crate) fn new(all: &Config, index: usize, manner: &Manner) -> Self {
        let mut config = Config::new();
        if let Some(user) = all.get_user() {
            config.user(user);
        }
        if let Some(password) = all.get_password() {
            config.password(password);
        }
        if let Some(database) = all.get_dbname() {
            config.dbname(database);
        }
        if let Some(options) = all.get_options() {
            config.options(options);
        }
        match all.get_hosts().get(index) {
            Some(Host::Tcp(name)) => _ = config.host(name),
            #[cfg(unix)]
            Some(Host::Unix(path)) => _ = config.host_path(path),
            None => {}
        }
        if let Some(address) = all.get_hostaddrs().get(index) {
            config.hostaddr(*address);
        }
        config
            .application_name(all.get_application_name().unwrap_or("eventbroker"))
            .port(all.get_ports().get(index).or(all.get_ports().first()).copied().unwrap_or(5432))
            .ssl_negotiation(all.get_ssl_negotiation())
            .channel_binding(all.get_channel_binding())
            .ssl_mode(if manner.tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .connect_timeout(Backoff::CONNECT_LIMIT)
            .tcp_user_timeout(UNANSWERED)
            .keepalives(true)
            .keepalives_idle(UNANSWERED)
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        if manner.is_writable {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Self { config, manner: manner.clone(), attempts: Arc::default(), asked_at: Mutex::default() }
    }

    /// Connects, and runs `prepare` with the connection, on another thread. A server that accepts the connection and then stands still
    /// is left after [`SILENCE`].
    pub(crate) fn connect<T: Send + 'static>(
        &self,
        prepare: impl FnOnce(Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, String> {
        if self.stands_still() {
            return Err("has not answered earlier attempts to connect".to_owned());
        }
        let (config, manner, attempt) = (self.config.clone(), self.manner.clone(), Arc::clone(&self.attempts));
        *self.asked_at.lock() = Some(Instant::now());
        let connected = within(SILENCE, move || {
            let _attempt = attempt;
            connect(&config, &manner).and_then(prepare)
        });
        if connected.is_ok() {
            *self.asked_at.lock() = None;
        }
        connected?.map_err(|error| error::text(&error))
    }

    /// Whether attempts wait for an answer, the last one for some time. Then the pause before the next one doubles with each, so that few
    /// threads wait for a server that is frozen for hours.
    fn stands_still(&self) -> bool {
        let waiting = Arc::strong_count(&self.attempts) - 1;
        let until = SILENCE + SILENCE * (1 << waiting.min(10));
        waiting > 0 && self.asked_at.lock().is_some_and(|at| (HESITATION..until).contains(&at.elapsed()))
    }
}

/// Connects. Must not be called inside an async runtime.
fn connect(config: &Config, manner: &Manner) -> Result<Client, Error> {
    #[cfg(feature = "tls")]
    if let Some(tls) = &manner.tls {
        return config.connect(tls.clone());
    }
    #[cfg(not(feature = "tls"))]
    let _ = manner;
    config.connect(NoTls)
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => write!(f, "{name}:{port}"),
            #[cfg(unix)]
            Some(Host::Unix(path)) => write!(f, "{}:{port}", path.display()),
            None => {
                write!(f, "{}:{port}", self.config.get_hostaddrs().first().map_or_else(String::new, IpAddr::to_string))
            }
        }
    }
}
