//! The options of the client library, and the reason of a failed connect.

use std::time::Duration;

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, Event};
use eventbroker::provider::Backoff;

use super::address::Address;
use super::tls;

/// The client drops a connection after about three unanswered pings.
const PING_EVERY: Duration = Duration::from_secs(2);
/// The delay of the client's own reconnect, longer than any process runs: the bridge makes a new client instead.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The options of a client that connects once, and calls `on_loss` when the connection is lost.
pub(super) fn options(
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
        // The bridge makes every subject of encoded tokens.
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
        options = options
            .credentials(&text)
            .map_err(|_| format!("{}: credentials_file: has no credentials", address.place))?;
    }
    Ok(tls::options(options, login.tls, login.tls_ca_file.as_deref()))
}

/// The reason of a failed connect. The client's own text may contain an address with a password.
pub(super) fn reason(error: &ConnectError) -> String {
    if let Some(refusal) = tls::refusal(error) {
        return refusal;
    }
    let reason = match error.kind() {
        ConnectErrorKind::ServerParse => "the address is invalid",
        ConnectErrorKind::Dns => "the name of the server is not known",
        ConnectErrorKind::Authentication => "the login could not be signed",
        ConnectErrorKind::AuthorizationViolation => "the server refuses the login",
        ConnectErrorKind::TimedOut => "no answer while connecting",
        ConnectErrorKind::Tls => "no secure connection could be made",
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => "can't be reached",
    };
    reason.to_owned()
}
