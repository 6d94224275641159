//! The servers' addresses and the login, as the settings have them.

use std::fmt;
use std::path::PathBuf;

use async_nats::ServerAddr;

use super::tls;
use crate::settings::{Nats, OpenError};

/// The login. Its fields are secrets.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user_and_password: Option<(String, String)>,
    pub(super) token: Option<String>,
    pub(super) nkey: Option<String>,
    /// The text of a credentials file.
    pub(super) credentials: Option<String>,
    /// TLS is mandatory.
    pub(super) tls: bool,
    /// The file with the root certificates.
    pub(super) tls_ca_file: Option<PathBuf>,
}

/// The servers and the login.
pub(super) struct Address {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) login: Login,
    /// The name of the connections at the servers.
    pub(super) name: String,
    /// The servers' addresses for errors, without secrets.
    pub(super) place: String,
}

impl Address {
    pub(super) fn new(settings: &Nats, name: String) -> Result<Self, OpenError> {
        // The text of the parser's error may contain a part of the address, and so a secret.
        let invalid = || OpenError::Setting("url: is not of the form nats://USER:PASSWORD@HOST:PORT".to_owned());
        let parsed = settings.url.expose().split(',').map(|url| url.trim().parse::<ServerAddr>());
        let servers = parsed.collect::<Result<Vec<_>, _>>().map_err(|_| invalid())?;
        if servers.iter().any(|server| server.host().is_empty() || server.is_websocket()) {
            return Err(invalid());
        }
        let tls = tls::check(&servers, settings)?;
        let places: Vec<String> = servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| {
                OpenError::Setting(format!("credentials_file: {} can't be read: {error}", path.display()))
            })
        };
        // The client ignores a login in an address.
        let in_url =
            servers.iter().find_map(|server| Some((decoded(server.username()?), server.password().map(decoded))));
        let (user_and_password, token) = match in_url {
            Some((user, Some(password))) => (Some((user, password)), None),
            Some((token, None)) => (None, Some(token)),
            None => (None, None),
        };
        // The client's traces contain addresses, so it gets them without secrets.
        let plain = |server: &ServerAddr| {
            let (scheme, host) = (if server.tls_required() { "tls" } else { "nats" }, server.host());
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            format!("{scheme}://{host}:{}", server.port()).parse().map_err(|_| invalid())
        };
        let login = Login {
            user_and_password: settings.login().or(user_and_password),
            token: settings.token.given().or(token),
            nkey: settings.nkey.given(),
            credentials: settings.credentials_file.as_ref().map(read).transpose()?,
            tls,
            tls_ca_file: settings.tls_ca_file.clone(),
        };
        let servers = servers.iter().map(plain).collect::<Result<Vec<ServerAddr>, OpenError>>()?;
        let place = format!("NATS at {}", places.join(", "));
        Ok(Self { servers, login, name, place })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A part of an address with its percent escapes decoded.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}
