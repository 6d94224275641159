//! TLS: the certificates that verify a server, and the handshake.

use std::fmt::Display;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
pub use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// The root certificates of a PEM file, or of the system.
///
/// # Errors
/// The text names the file and its problem: it can't be read, or has no certificate that can be used. A system without certificates is no
/// error: it trusts no server.
pub fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let Some(path) = file else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(store);
    };
    let problem = |problem: &dyn Display| format!("{}: {problem}", path.display());
    let text = fs::read(path).map_err(|error| problem(&error))?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    store.add_parsable_certificates(certificates.map_err(|error| problem(&error))?);
    if store.is_empty() { Err(problem(&"there is no certificate in it")) } else { Ok(store) }
}

/// The configuration of a client that trusts root certificates, and shows none itself.
///
/// # Errors
/// The text of the TLS library.
pub fn client_config(roots: RootCertStore) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Makes the handshake, and verifies the server's certificate and name.
///
/// # Errors
/// The reason of the TLS library, or the failure of the connection.
pub fn handshake(config: Arc<ClientConfig>, host: &str, stream: &mut TcpStream) -> io::Result<ClientConnection> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(stream)?;
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process;

    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let error = roots(Some(Path::new("/nowhere.pem"))).expect_err("there is no such file");
        assert!(error.starts_with("/nowhere.pem: "), "{error}");
        let file = env::temp_dir().join(format!("eventbroker-kit-{}.pem", process::id()));
        // The second text is no certificate, although its form is right.
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            fs::write(&file, text).expect("a file");
            let error = roots(Some(&file)).expect_err("no certificate");
            assert!(error.ends_with(".pem: there is no certificate in it"), "{error}");
        }
        fs::remove_file(&file).expect("the file goes");
    }

    #[test]
    fn the_system_and_an_empty_store_make_a_configuration() {
        assert!(client_config(roots(None).expect("roots")).is_ok());
        assert!(client_config(RootCertStore::empty()).is_ok());
    }
}
