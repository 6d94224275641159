//! The address of the servers. A password is sent to another machine without TLS only if the address says so.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use eventbroker::provider::Backoff;
use postgres::config::Host;
use postgres::{Client, Config, Error};

use super::bounded::SILENCE;
use super::server::{Manner, Server};
#[cfg(feature = "tls")]
use super::tls;
use crate::settings::OpenError;

const FORM: &str = "url: is not of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE";

/// One or more servers, a database and a login. Shown without user and password.
pub(crate) struct Address {
    /// At least one. They are tried in this order.
    servers: Vec<Server>,
    database: Option<String>,
    /// A pooler at the address shares sessions between clients.
    is_pooled: AtomicBool,
    /// The pauses between attempts to connect.
    pub(crate) backoff: Backoff,
    /// How often the provider has left a server that had become read-only. The address to listen at has the same number.
    departures: Arc<AtomicU64>,
}

impl Address {
    /// Parses an address. `sslmode` is `disable`, `prefer`, `require`, `verify-ca` or `verify-full`. With TLS the certificate is always
    /// checked, name included. For another machine, `prefer` and a missing `sslmode` mean `require`. Of several servers, only one that
    /// can be written to will do.
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        let setting = |problem: &str| OpenError::Setting(problem.to_owned());
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(setting(FORM));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut kept, mut is_plain, mut is_tls, mut roots, mut is_writable) = (Vec::new(), false, false, None, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", "disable")) => is_plain = true,
                Some(("sslmode", "prefer")) => {}
                Some(("sslmode", "require" | "verify-ca" | "verify-full")) => is_tls = true,
                Some(("sslmode", _)) => {
                    return Err(setting("url: sslmode is not disable, prefer, require, verify-ca or verify-full"));
                }
                Some(("sslrootcert", path)) => roots = Some(path.to_owned()),
                Some(("target_session_attrs", "any")) => {}
                Some(("target_session_attrs", "read-write")) => is_writable = true,
                Some(("target_session_attrs", _)) => {
                    return Err(setting("url: target_session_attrs is not any or read-write, and events are written"));
                }
                Some(("load_balance_hosts", "disable")) => {}
                Some(("load_balance_hosts", _)) => {
                    return Err(setting(
                        "url: load_balance_hosts is not disable: the servers are tried in their order",
                    ));
                }
                _ => kept.push(pair),
            }
        }
        let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        // The parser's message may contain a part of the address, and with it a secret.
        let config: Config = url.parse().map_err(|_| setting(FORM))?;
        let count = count_servers(&config).map_err(OpenError::Setting)?;
        let is_near =
            config.get_hosts().iter().all(is_near_host) && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        let is_tls = is_tls || !(is_plain || is_near);
        #[cfg(not(feature = "tls"))]
        if is_tls || roots.is_some() {
            return Err(setting(
                "url: the server is on another machine or TLS is asked for, and TLS is not compiled in: build eventbroker-sql \
                 with the feature `tls`, or say sslmode=disable if everything may go over the network in the clear",
            ));
        }
        let manner = Manner {
            is_writable: is_writable || count > 1,
            #[cfg(feature = "tls")]
            tls: is_tls.then(|| tls::connector(roots.as_deref())).transpose()?,
            #[cfg(not(feature = "tls"))]
            tls: None,
        };
        Ok(Self {
            servers: (0..count).map(|index| Server::new(&config, index, &manner)).collect(),
            database: config.get_dbname().map(str::to_owned),
            is_pooled: AtomicBool::new(false),
            backoff: Backoff::default(),
            departures: Arc::default(),
        })
    }

    /// Connects to the first server that answers and will do, and runs `prepare` with the connection.
    ///
    /// # Errors
    /// A text with the error of each server.
    pub(crate) fn connect<T: Send + 'static>(
        &self,
        prepare: impl FnOnce(Client) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, String> {
        let mut problems = Vec::new();
        for server in &self.servers {
            match server.connect(prepare.clone()) {
                Ok(connected) => return Ok(connected),
                Err(problem) if self.servers.len() == 1 => problems.push(problem),
                Err(problem) => problems.push(format!("{server}: {problem}")),
            }
        }
        Err(format!("{self}: {}", problems.join("; ")))
    }

    /// Whether a pooler at the address shares sessions between clients.
    pub(crate) fn is_pooled(&self) -> bool {
        self.is_pooled.load(Ordering::Relaxed)
    }

    pub(crate) fn set_pooled(&self, is_pooled: bool) {
        self.is_pooled.store(is_pooled, Ordering::Relaxed);
    }

    /// The longest time that an attempt to connect takes: every server may stand still.
    pub(super) fn connect_limit(&self) -> Duration {
        SILENCE * self.servers.len().try_into().unwrap_or(u32::MAX)
    }

    /// Leaves its servers when `other` does.
    pub(crate) fn leave_with(&mut self, other: &Self) {
        self.departures = Arc::clone(&other.departures);
    }

    /// A connection that was made before this number has changed is to a server that was left.
    pub(crate) fn departures(&self) -> u64 {
        self.departures.load(Ordering::SeqCst)
    }

    /// Leaves the server of a connection that was made at `departures`, with every connection of the provider.
    pub(crate) fn leave(&self, departures: u64) {
        // Another connection may have left that server already.
        let _ = self.departures.compare_exchange(departures, departures + 1, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// The number of servers of an address, which is at least one.
fn count_servers(config: &Config) -> Result<usize, String> {
    let [hosts, addresses, ports] = [config.get_hosts().len(), config.get_hostaddrs().len(), config.get_ports().len()];
    let count = hosts.max(addresses);
    if count == 0 {
        return Err("url: names no host".to_owned());
    }
    if hosts > 0 && addresses > 0 && hosts != addresses {
        return Err(format!("url: names {hosts} hosts and {addresses} of hostaddr, as many are required"));
    }
    if ports > 1 && ports != count {
        return Err(format!("url: names {count} hosts and {ports} ports, one port or as many are required"));
    }
    Ok(count)
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
        let servers: Vec<String> = self.servers.iter().map(Server::to_string).collect();
        write!(f, "PostgreSQL at {}", servers.join(","))?;
        self.database.as_ref().map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}
