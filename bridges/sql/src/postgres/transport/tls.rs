//! TLS: the certificates that the server's certificate is checked with.

use std::path::Path;

use eventbroker_bridge_kit::tls;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::settings::OpenError;

pub(crate) type Connector = MakeRustlsConnect;

/// A connector that checks with the certificates of a PEM file, or with those of the system.
pub(crate) fn connector(roots: Option<&str>) -> Result<Connector, OpenError> {
    let store = tls::roots(roots.map(Path::new));
    let store = store.map_err(|problem| OpenError::Setting(format!("url: sslrootcert {problem}")))?;
    if store.is_empty() {
        return Err(OpenError::Setting(
            "url: there is no certificate to check the server's with: name a file of them as sslrootcert".to_owned(),
        ));
    }
    let config = tls::client_config(store).map_err(|problem| OpenError::Setting(format!("url: TLS: {problem}")))?;
    Ok(MakeRustlsConnect::new(config))
}
