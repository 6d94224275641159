//! TLS: the root certificates, and the reason of a refused certificate. Without the feature `tls` the bridge refuses every TLS
//! connection, also one that a server asks for by itself.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_nats::rustls::crypto::ring;
use async_nats::rustls::{self, ClientConfig, RootCertStore};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};
#[cfg(feature = "tls")]
use eventbroker_bridge_kit::tls;

use crate::settings::Nats;
use crate::settings::OpenError;

/// The error without the feature.
const FEATURE: &str = "needs TLS, which is not compiled in: build eventbroker-nats with the feature `tls`";

/// Whether TLS is mandatory. An error if the settings do not fit that.
pub(super) fn check(servers: &[ServerAddr], settings: &Nats) -> Result<bool, OpenError> {
    let is_secret = servers.iter().any(ServerAddr::tls_required);
    if is_secret && cfg!(not(feature = "tls")) {
        return Err(OpenError::Setting(format!("url: tls:// {FEATURE}")));
    }
    match &settings.tls_ca_file {
        Some(_) if !is_secret => Err(OpenError::Setting("tls_ca_file: is only for a tls:// url".to_owned())),
        #[cfg(feature = "tls")]
        file @ Some(_) => read(file.as_deref()).map(|_| true).map_err(OpenError::Setting),
        _ => Ok(is_secret),
    }
}

/// The root certificates of the file in the settings, or of the system. Read again at each connection, since the file may have been renewed.
#[cfg(feature = "tls")]
fn read(file: Option<&Path>) -> Result<RootCertStore, String> {
    tls::roots(file).map_err(|problem| format!("tls_ca_file: {problem}"))
}

/// Sets the root certificates of the client: those of a PEM file, or of the system.
pub(super) fn options(options: ConnectOptions, is_required: bool, roots: Option<&Path>) -> ConnectOptions {
    if cfg!(not(feature = "tls")) {
        // A server may ask for TLS: an empty store trusts no certificate.
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
    // The client uses the provider of the process. An existing one stays.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = ring::default_provider().install_default();
    }
    let options = options.require_tls(is_required);
    match roots {
        Some(path) => options.add_root_certificates(path.to_owned()),
        None => options,
    }
}

/// The reason if TLS failed. The text contains names, and no address with a password.
pub(super) fn refusal(error: &ConnectError) -> Option<String> {
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
