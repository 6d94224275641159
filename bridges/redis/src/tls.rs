//! TLS: which certificates a server's is checked with.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use redis::{Client, ConnectionInfo, TlsCertificates};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::OpenError;

/// Checks with the certificates of a PEM file, or with those of the system.
pub(crate) fn client(info: ConnectionInfo, roots: Option<&Path>) -> Result<Client, OpenError> {
    // The client asks for the one of the process. Where there is one already, that will do.
    if CryptoProvider::get_default().is_none() {
        let _ = ring::default_provider().install_default();
    }
    let root_cert = roots.map(read).transpose()?;
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
        .map_err(|error| OpenError::Setting(format!("url: TLS: {error}")))
}

fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    let unreadable = |problem: &dyn Display| OpenError::Setting(format!("tls_ca_file: {}: {problem}", path.display()));
    let text = fs::read(path).map_err(|error| unreadable(&error))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        certificate.map_err(|error| unreadable(&error))?;
        count += 1;
    }
    if count == 0 { Err(unreadable(&"there is no certificate in it")) } else { Ok(text) }
}
