//! TLS: the certificates that verify the server, and the handshake.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use redis::{RedisError, RedisResult};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::settings::OpenError;

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// The configuration that verifies servers.
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Verifies with the certificates of a PEM file, or with those of the system.
    pub(crate) fn new(roots: Option<&Path>) -> Result<Self, OpenError> {
        let invalid = |problem: &dyn Display| OpenError::Setting(format!("url: TLS: {problem}"));
        let mut store = RootCertStore::empty();
        match roots {
            Some(path) => {
                for certificate in read(path)? {
                    store.add(certificate).map_err(|error| unreadable(path, &error))?;
                }
            }
            None => _ = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(&error))?;
        Ok(Self(Arc::new(config.with_root_certificates(store).with_no_client_auth())))
    }

    /// Makes the handshake, and verifies the server's certificate and name.
    pub(crate) fn handshake(&self, host: &str, mut stream: TcpStream) -> RedisResult<Stream> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(RedisError::from)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let text = fs::read(path).map_err(|error| unreadable(path, &error))?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| unreadable(path, &error))?;
    if certificates.is_empty() { Err(unreadable(path, &"there is no certificate in it")) } else { Ok(certificates) }
}

fn unreadable(path: &Path, problem: &dyn Display) -> OpenError {
    OpenError::Setting(format!("tls_ca_file: {}: {problem}", path.display()))
}
