//! The address of the server. A password is sent to another machine without TLS only if the address says so.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use eventbroker::provider::Backoff;
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, Error, NoTls};

#[cfg(feature = "tls")]
use super::tls;
use crate::settings::OpenError;

/// How long sent data may stay unanswered.
const SILENCE: Duration = Duration::from_secs(5);
const FORM: &str = "url: is not of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE";

/// A server, a database and a login. Shown without user and password.
pub(crate) struct Address {
    config: Config,
    /// A pooler at the address shares sessions between clients.
    pub(crate) is_pooled: AtomicBool,
    /// The pauses between attempts to connect.
    pub(crate) backoff: Backoff,
    /// TLS, if the address asks for it.
    #[cfg(feature = "tls")]
    tls: Option<tls::Connector>,
}

impl Address {
    /// Parses an address. `sslmode` is `disable`, `prefer`, `require`, `verify-ca` or `verify-full`. With TLS the certificate is always
    /// checked, name included. For another machine, `prefer` and a missing `sslmode` mean `require`.
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        let setting = |problem: &str| OpenError::Setting(problem.to_owned());
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(setting(FORM));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut kept, mut is_plain, mut is_tls, mut roots) = (Vec::new(), false, false, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", "disable")) => is_plain = true,
                Some(("sslmode", "prefer")) => {}
                Some(("sslmode", "require" | "verify-ca" | "verify-full")) => is_tls = true,
                Some(("sslmode", _)) => {
                    return Err(setting("url: sslmode is not disable, prefer, require, verify-ca or verify-full"));
                }
                Some(("sslrootcert", path)) => roots = Some(path.to_owned()),
                _ => kept.push(pair),
            }
        }
        let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        // The parser's message may contain a part of the address, and with it a secret.
        let mut config: Config = url.parse().map_err(|_| setting(FORM))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(setting("url: names no host"));
        }
        let is_near =
            config.get_hosts().iter().all(is_near_host) && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        let is_tls = is_tls || !(is_plain || is_near);
        config
            .ssl_mode(if is_tls { SslMode::Require } else { SslMode::Disable })
            .connect_timeout(Backoff::CONNECT_LIMIT)
            .tcp_user_timeout(SILENCE)
            .keepalives(true)
            .keepalives_idle(SILENCE)
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        if config.get_application_name().is_none() {
            config.application_name("eventbroker");
        }
        #[cfg(not(feature = "tls"))]
        if is_tls || roots.is_some() {
            return Err(setting(
                "url: the server is on another machine or TLS is asked for, and TLS is not compiled in: build eventbroker-sql \
                 with the feature `tls`, or say sslmode=disable if everything may go over the network in the clear",
            ));
        }
        Ok(Self {
            #[cfg(feature = "tls")]
            tls: is_tls.then(|| tls::connector(roots.as_deref())).transpose()?,
            config,
            is_pooled: AtomicBool::new(false),
            backoff: Backoff::default(),
        })
    }

    /// Connects. Must not be called inside an async runtime.
    pub(crate) fn connect(&self) -> Result<Client, Error> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return self.config.connect(tls.clone());
        }
        self.config.connect(NoTls)
    }
}

fn is_near_host(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        f.write_str("PostgreSQL at ")?;
        match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => write!(f, "{name}:{port}")?,
            #[cfg(unix)]
            Some(Host::Unix(path)) => write!(f, "{}:{port}", path.display())?,
            None => {
                write!(f, "{}:{port}", self.config.get_hostaddrs().first().map_or_else(String::new, IpAddr::to_string))?
            }
        }
        self.config.get_dbname().map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}
