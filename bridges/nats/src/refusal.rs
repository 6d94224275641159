//! Why no connection has come to be, for whoever reads the error. What TLS has against a server is in [`tls`].

use async_nats::{ConnectError, ConnectErrorKind};

use crate::tls;

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
