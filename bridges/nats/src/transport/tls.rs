//! TLS: which certificates a server's is checked with, and what is said if it is not the right one. Without the feature `tls` no server is
//! spoken to over TLS, also not one that asks for it by itself.

use std::error::Error as _;
use std::fmt::Display;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use async_nats::rustls::crypto::ring;
use async_nats::rustls::pki_types::pem::PemObject as _;
use async_nats::rustls::pki_types::{CertificateDer, ServerName};
use async_nats::rustls::{self, ClientConfig, ClientConnection, RootCertStore};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};

use crate::settings::Nats;
use crate::settings::OpenError;

/// What is missing where TLS is.
const FEATURE: &str = "needs TLS, which is not compiled in: build eventbroker-nats with the feature `tls`";

/// Whether the servers are only spoken to over TLS; and whether the settings fit that.
pub(crate) fn check(servers: &[ServerAddr], settings: &Nats) -> Result<bool, OpenError> {
    let is_secret = servers.iter().any(ServerAddr::tls_required);
    if is_secret && cfg!(not(feature = "tls")) {
        return Err(OpenError::Setting(format!("url: tls:// {FEATURE}")));
    }
    match &settings.tls_ca_file {
        Some(_) if !is_secret => Err(OpenError::Setting("tls_ca_file: is only for a tls:// url".to_owned())),
        Some(path) => read(path).map(|_| true),
        None => Ok(is_secret),
    }
}

/// The certificates in a file, of which there is at least one. It is read again at each connection.
fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let unreadable = |problem: &dyn Display| OpenError::Setting(format!("tls_ca_file: {}: {problem}", path.display()));
    let text = std::fs::read(path).map_err(|error| unreadable(&error))?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| unreadable(&error))?;
    if certificates.is_empty() { Err(unreadable(&"there is no certificate in it")) } else { Ok(certificates) }
}

/// Checks with the certificates of a PEM file, or with those of the system.
pub(crate) fn options(options: ConnectOptions, is_required: bool, roots: Option<&Path>) -> ConnectOptions {
    if cfg!(not(feature = "tls")) {
        // A server may ask for it. Then nobody is trusted.
        return match ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
        {
            Ok(none) => {
                let none = none.with_root_certificates(RootCertStore::empty());
                options.tls_client_config(none.with_no_client_auth())
            }
            Err(_) => options,
        };
    }
    // The client asks for the one of the process. Where there is one already, that will do.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = ring::default_provider().install_default();
    }
    let options = options.require_tls(is_required);
    match roots {
        Some(path) => options.add_root_certificates(path.to_owned()),
        None => options,
    }
}

/// Speaks to a server over TLS on a connection of our own, if it is known by its certificate and its name. Both files are read each time: they may
/// have been renewed.
pub(crate) fn greet(host: &str, stream: &mut TcpStream, roots: Option<&Path>) -> Result<ClientConnection, String> {
    if cfg!(not(feature = "tls")) {
        return Err(format!("the server {FEATURE}"));
    }
    let problem = |error: &dyn Display| format!("no secure connection could be made: {error}");
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(match roots {
        Some(path) => read(path).map_err(|error| problem(&error))?,
        None => of_the_system(),
    });
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| problem(&error))?;
    let config = Arc::new(config.with_root_certificates(store).with_no_client_auth());
    let name = ServerName::try_from(host.to_owned()).map_err(|error| problem(&error))?;
    let mut connection = ClientConnection::new(config, name).map_err(|error| problem(&error))?;
    while connection.is_handshaking() {
        connection.complete_io(stream).map_err(|error| problem(&error))?;
    }
    Ok(connection)
}

#[cfg(feature = "tls")]
fn of_the_system() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

#[cfg(not(feature = "tls"))]
fn of_the_system() -> Vec<CertificateDer<'static>> {
    Vec::new()
}

/// What TLS has against a server, if it is that. There are names in it, and no address with a password.
pub(crate) fn refusal(error: &ConnectError) -> Option<String> {
    let cause = error.source().and_then(|it| it.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
    let cause = cause.and_then(|it| it.downcast_ref::<rustls::Error>());
    if cause.is_none() && error.kind() != ConnectErrorKind::Tls {
        return None;
    }
    if cfg!(not(feature = "tls")) {
        return Some(format!("the server {FEATURE}"));
    }
    let cause = cause.map(|it| format!(": {it}")).unwrap_or_default();
    Some(format!("no secure connection could be made{cause}"))
}
