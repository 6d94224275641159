//! TLS: the configuration that verifies the server, and the handshake.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use eventbroker_bridge_kit::tls::{self, ClientConfig, ClientConnection, StreamOwned};
use redis::RedisResult;

use crate::settings::OpenError;

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// The configuration that verifies servers.
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Verifies with the certificates of a PEM file, or with those of the system.
    pub(crate) fn new(roots: Option<&Path>) -> Result<Self, OpenError> {
        let roots = tls::roots(roots).map_err(|problem| OpenError::Setting(format!("tls_ca_file: {problem}")))?;
        let config = tls::client_config(roots);
        let config = config.map_err(|problem| OpenError::Setting(format!("url: TLS: {problem}")))?;
        Ok(Self(Arc::new(config)))
    }

    /// Makes the handshake, and verifies the server's certificate and name.
    pub(crate) fn handshake(&self, host: &str, mut stream: TcpStream) -> RedisResult<Stream> {
        let connection = tls::handshake(Arc::clone(&self.0), host, &mut stream)?;
        Ok(StreamOwned::new(connection, stream))
    }
}
