//! The address of the server, and links to it. A link has one connection, which one thread uses at a time. After any failure of the
//! network the link drops its connection: a late reply would be taken for that of the next request.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Backoff};
use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisError, RedisResult, Value};

use super::socket::{Address, Connection};
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::settings::{OpenError, Redis};

/// A connection that was idle for this long is tested before its next use: the network may have cut it without notice.
const IDLE: Duration = Duration::from_secs(2);

/// The server of a provider. All links of the provider share its backoff.
pub(crate) struct Server {
    address: Address,
    /// The host and port, or the socket's path; without secrets.
    place: String,
    backoff: Backoff,
}

impl Server {
    pub(crate) fn new(settings: &Redis) -> Result<Self, OpenError> {
        let setting = |problem: &str| Err(OpenError::Setting(problem.to_owned()));
        // The parser's own error may quote a part of the address, and with it a secret.
        let invalid =
            || OpenError::Setting("url: is not of the form redis://USER:PASSWORD@HOST:PORT/DATABASE".to_owned());
        let url = settings.url.expose();
        let is_tls = ["rediss:", "valkeys:"].iter().any(|scheme| url.starts_with(scheme));
        if is_tls && cfg!(not(feature = "tls")) {
            return setting(
                "url: rediss:// needs TLS, which is not compiled in: build eventbroker-redis with the feature `tls`",
            );
        }
        // Without a TLS feature of its own, the client library only parses plain addresses.
        let plain = if is_tls { url.replacen("s://", "://", 1) } else { url.to_owned() };
        let info = plain.as_str().into_connection_info().map_err(|_| invalid())?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => return Err(invalid()),
        };
        match url.split_once('#') {
            Some((_, "insecure")) if is_tls => {
                return setting("url: #insecure is not offered; name the certificate instead");
            }
            Some(_) => return Err(invalid()),
            None => {}
        }
        if !is_tls && settings.tls_ca_file.is_some() {
            return setting("tls_ca_file: is only for a rediss:// url");
        }
        let address = Address {
            info,
            #[cfg(feature = "tls")]
            tls: is_tls.then(|| Tls::new(settings.tls_ca_file.as_deref())).transpose()?,
        };
        Ok(Self { address, place: format!("Redis at {place}"), backoff: Backoff::default() })
    }

    /// A failure of which the server is the subject.
    pub(crate) fn unavailable(&self, problem: impl fmt::Display) -> BackendError {
        BackendError::Unavailable(format!("{}: {problem}", self.place))
    }
}

/// A connection that is made when it is needed.
pub(crate) struct Link {
    pub(crate) server: Arc<Server>,
    connection: Option<Connection>,
    used: Instant,
}

impl Link {
    pub(crate) fn new(server: &Arc<Server>) -> Self {
        Self { server: Arc::clone(server), connection: None, used: Instant::now() }
    }

    /// The open connection, if there is one and it still works.
    fn open_connection(&mut self) -> Option<Connection> {
        let mut connection = self.connection.take()?;
        if self.used.elapsed() >= IDLE {
            let reply: RedisResult<Value> = redis::cmd("PING").query(&mut connection);
            // A refusal is a reply too.
            if reply.is_err_and(|error| error.code().is_none()) {
                return None;
            }
        }
        Some(connection)
    }

    /// Sends requests and reads their replies. Every failure is temporary: an operator may repair the server, or restore rights.
    pub(crate) fn call<T>(&mut self, work: impl FnOnce(&mut Connection) -> RedisResult<T>) -> Result<T, BackendError> {
        let open = self.open_connection();
        let server = &self.server;
        let mut connection = match open {
            Some(connection) => connection,
            None => server.backoff.attempt(|| {
                server.address.connect().map_err(|error| format!("{}: {}", server.place, describe(&error)))
            })?,
        };
        // If `work` panics, the connection is dropped with its unread replies.
        let result = work(&mut connection);
        // A refusal leaves the connection intact. READONLY is the exception: after a failover the address may lead to another server.
        let is_lost = |error: &RedisError| error.code().is_none_or(|code| code == "READONLY");
        if !result.as_ref().is_err_and(is_lost) {
            self.connection = Some(connection);
            self.used = Instant::now();
        }
        result.map_err(|error| server.unavailable(describe(&error)))
    }

    /// Fails if the server may evict keys when its memory is full. Without the right to ask, nothing is checked.
    pub(crate) fn check_eviction(&mut self) -> Result<(), OpenError> {
        let info: Result<String, BackendError> =
            self.call(|connection| match redis::cmd("INFO").arg("memory").query(connection) {
                Err(error) if error.code() == Some("NOPERM") => Ok(String::new()),
                info => info,
            });
        let info = info?;
        let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(str::trim);
        match policy.filter(|policy| policy.starts_with("allkeys-")) {
            Some(policy) => Err(OpenError::Setting(format!(
                "the server's maxmemory-policy is {policy}, which may evict the stream; noeviction is required"
            ))),
            None => Ok(()),
        }
    }
}

fn describe(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}
