//! The client library: what it is told of how to connect, and why no connection has come to be, for whoever reads the error. What TLS has
//! against a server is in [`tls`].

use std::time::Duration;

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, Event};
use eventbroker::provider::Backoff;

use crate::socket::Address;
use crate::tls;

/// A server that is silent for about three of these is taken for gone.
const PING_EVERY: Duration = Duration::from_secs(2);
/// It would connect again by itself after this, which it never lives to see.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How it connects: the first time at once, and never again. It tells that a connection was lost.
pub(crate) fn options(
    address: &Address,
    is_first: impl Fn() -> bool + Send + Sync + 'static,
    on_loss: impl Fn() + Send + Sync + 'static,
) -> Result<ConnectOptions, String> {
    let login = address.login.clone();
    let mut options = ConnectOptions::new()
        .name(&address.name)
        .connection_timeout(Backoff::CONNECT_LIMIT)
        .ping_interval(PING_EVERY)
        .ignore_discovered_servers()
        .client_capacity(4_096)
        // They are made here, of tokens.
        .skip_subject_validation(true)
        .reconnect_delay_callback(move |_| if is_first() { Duration::ZERO } else { NEVER })
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                on_loss();
            }
            async {}
        });
    if let Some((user, password)) = login.user_and_password {
        options = options.user_and_password(user, password);
    }
    if let Some(token) = login.token {
        options = options.token(token);
    }
    if let Some(seed) = login.nkey {
        options = options.nkey(seed);
    }
    if let Some(text) = login.credentials {
        options = options.credentials(&text).map_err(|_| format!("{}: credentials: are none", address.place))?;
    }
    Ok(tls::options(options, login.tls, login.tls_ca_file.as_deref()))
}

/// In our own words: the client's may show an address with a password.
pub(crate) fn reason(error: &ConnectError) -> String {
    if let Some(refusal) = tls::refusal(error) {
        return refusal;
    }
    let reason = match error.kind() {
        ConnectErrorKind::ServerParse => "the address is none",
        ConnectErrorKind::Dns => "the name of the server is not known",
        ConnectErrorKind::Authentication => "the login could not be signed",
        ConnectErrorKind::AuthorizationViolation => "the server refuses the login",
        ConnectErrorKind::TimedOut => "no answer to the try to connect",
        ConnectErrorKind::Tls => "no secure connection could be made",
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => "can't be reached",
    };
    reason.to_owned()
}
