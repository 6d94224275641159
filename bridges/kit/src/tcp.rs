//! TCP connections.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};

use eventbroker::provider::Backoff;

/// Connects to the first address of the host that accepts within [`Backoff::CONNECT_LIMIT`]. Small writes are sent at once.
///
/// # Errors
/// That of the last address, or that of the look-up of the name.
pub fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut problem = io::Error::new(io::ErrorKind::NotFound, "the name of the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Backoff::CONNECT_LIMIT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_host_is_reached_at_the_address_that_accepts() {
        // `localhost` may be `::1` first.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let stream = connect("localhost", port).expect("a connection");
        assert!(stream.nodelay().expect("an option"));
        drop((listener, stream));
        let error = connect("127.0.0.1", port).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
