//! The options of the client library, and the reason of a failed connect.

use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event};
use eventbroker::provider::Backoff;

use super::address::Address;
use super::tls;

/// The client drops a connection after about three unanswered pings.
const PING_EVERY: Duration = Duration::from_secs(2);
/// The delay of the client's own reconnect, longer than any process runs: the bridge makes a new client instead.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// The client's queue: more than the bridge has in flight, so that it takes a message at once.
const QUEUE: usize = 65_536;
/// The oldest supported server: major and minor version.
const FLOOR: (u32, u32) = (2, 11);

/// Connects. An error has the words of the bridge.
pub(super) async fn connect(address: &Address, options: ConnectOptions) -> Result<Client, String> {
    let (place, servers) = (&address.place, address.servers.clone());
    let client = options.connect(servers).await.map_err(|error| format!("{place}: {}", reason(&error)))?;
    let version = client.server_info().version;
    if is_too_old(&version) {
        let (major, minor) = FLOOR;
        return Err(format!("{place}: nats-server {version} is too old, {major}.{minor} or later is required"));
    }
    Ok(client)
}

/// Whether a version is older than the floor. A version that is not of the form `MAJOR.MINOR.…` is not judged.
fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    matches!((parts.next().flatten(), parts.next().flatten()), (Some(major), Some(minor)) if (major, minor) < FLOOR)
}

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
        .client_capacity(QUEUE)
        // The bridge makes every subject of encoded tokens.
        .skip_subject_validation(true)
        .reconnect_delay_callback(move |_| if is_first() { Duration::ZERO } else { NEVER })
        .event_callback(move |event| {
            match event {
                Event::Disconnected | Event::Closed => on_loss(),
                Event::ServerError(reason) => tracing::warn!(%reason, "NATS refuses"),
                _ => {}
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
fn reason(error: &ConnectError) -> String {
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

#[cfg(test)]
mod tests {
    use super::is_too_old;

    #[test]
    fn a_version_below_the_floor_is_too_old() {
        assert!(["1.4.1", "2.9.10", "2.10.29"].iter().all(|it| is_too_old(it)));
        assert!(!["2.11.0", "2.11.0-RC.1", "2.15.1", "3.0.0", "", "dev"].iter().any(|it| is_too_old(it)));
    }
}
