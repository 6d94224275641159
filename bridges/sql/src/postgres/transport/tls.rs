//! TLS: the certificates that the server's certificate is checked with.

use std::fs;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::settings::OpenError;

pub(crate) type Connector = MakeRustlsConnect;

/// A connector that checks with the certificates of a PEM file, or with those of the system.
pub(crate) fn connector(roots: Option<&str>) -> Result<Connector, OpenError> {
    let mut store = RootCertStore::empty();
    let found = match roots {
        Some(path) => {
            let unreadable =
                |problem: &dyn std::fmt::Display| OpenError::Setting(format!("url: sslrootcert {path}: {problem}"));
            let text = fs::read(path).map_err(|error| unreadable(&error))?;
            CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(&error))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    store.add_parsable_certificates(found);
    if store.is_empty() {
        return Err(OpenError::Setting(
            "url: there is no certificate to check the server's with: name a file of them as sslrootcert".to_owned(),
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Setting(format!("url: TLS: {error}")))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
