//! The sockets of the bridge's own connections: connecting, checking the server's version and logging in, reading and writing frames, with or
//! without TLS. The client library has a connection of its own for the rest; it costs a task switch per message, too much for publishing and consuming.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use async_nats::ServerAddr;
use async_nats::rustls::ClientConnection;
use bytes::BytesMut;
use eventbroker::provider::Backoff;
use eventbroker_bridge_kit::tcp;
use serde::Deserialize;
use tokio::io::Interest;

use super::address::Address;
use super::frame::{self, Frame};
use super::tls;

/// Bytes of one read.
const READ: usize = 64 * 1024;
/// Capacity that the buffers keep after large messages.
const KEPT: usize = 1 << 20;

/// A connection that has logged in.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) channel: Channel,
    /// The server's limit for a message, in bytes.
    pub(super) max_payload: usize,
    server_id: String,
}

/// The buffers of a connection, and its TLS session.
pub(super) struct Channel {
    tls: Option<Box<ClientConnection>>,
    /// The target of each read.
    buffer: Box<[u8]>,
    incoming: BytesMut,
    /// Frames to send.
    pub(super) outgoing: Vec<u8>,
}

/// The oldest supported server: major and minor version. The documentation of the package names it too.
const OLDEST_SERVER: (u32, u32) = (2, 11);

/// The `INFO` of a server.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ServerInfo {
    server_id: String,
    version: String,
    max_payload: usize,
    tls_required: bool,
    nonce: String,
}

impl Address {
    /// Connects to the server with the id `preferred` if one has it, else to another. Blocks at most `Backoff::CONNECT_LIMIT` for each answer.
    pub(super) fn connect(&self, preferred: Option<&str>) -> Result<Connection, String> {
        let (mut other, mut problem) = (None, None);
        let first = self.first.load(Ordering::Relaxed);
        for at in 0..self.servers.len() {
            let at = (first + at) % self.servers.len();
            match self.connect_to(&self.servers[at]) {
                Ok(connection) if preferred.is_none_or(|id| connection.server_id == id) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok(connection) => other = other.or(Some(connection)),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        let none = || format!("{}: {}", self.place, problem.unwrap_or_else(|| "there is no server".to_owned()));
        other.ok_or_else(none)
    }

    fn connect_to(&self, server: &ServerAddr) -> Result<Connection, String> {
        let stream = connect(server).map_err(|_| "can't be reached".to_owned())?;
        let mut connection = Connection { stream, channel: Channel::new(), max_payload: 0, server_id: String::new() };
        let info = loop {
            match connection.read_frame()? {
                Frame::Info(text) => {
                    break serde_json::from_slice::<ServerInfo>(&text).map_err(|error| error.to_string())?;
                }
                Frame::Refusal(reason) => return Err(refused(&reason)),
                _ => {}
            }
        };
        check_version(&info.version)?;
        let is_secret = self.login.tls || server.tls_required();
        if is_secret || info.tls_required {
            let Connection { stream, channel, .. } = &mut connection;
            channel.tls = Some(Box::new(tls::handshake(server.host(), stream, self.login.tls_ca_file.as_deref())?));
        }
        (connection.max_payload, connection.server_id) = (info.max_payload, info.server_id);
        let out = &mut connection.channel.outgoing;
        frame::connect(out, &self.connect_options(&info.nonce)?);
        frame::ping(out);
        connection.send()?;
        loop {
            match connection.read_frame()? {
                Frame::Pong => return Ok(connection),
                Frame::Refusal(reason) => return Err(refused(&reason)),
                Frame::Ping => frame::pong(&mut connection.channel.outgoing),
                _ => {}
            }
        }
    }
}

/// Connects to a server. Calls on the socket have limits.
fn connect(server: &ServerAddr) -> io::Result<TcpStream> {
    let stream = tcp::connect(server.host(), server.port())?;
    stream.set_read_timeout(Some(Backoff::CONNECT_LIMIT))?;
    stream.set_write_timeout(Some(Backoff::CONNECT_LIMIT))?;
    Ok(stream)
}

/// Refuses a server that is older than the oldest supported one. A version that is not of the form `MAJOR.MINOR.…` is not judged.
pub(super) fn check_version(version: &str) -> Result<(), String> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next()) else { return Ok(()) };
    if (major, minor) >= OLDEST_SERVER {
        return Ok(());
    }
    let (major, minor) = OLDEST_SERVER;
    Err(format!("nats-server {version} is too old, {major}.{minor} or later is required"))
}

fn refused(reason: &str) -> String {
    let is_login = reason.to_ascii_lowercase().contains("authorization") || reason.contains("Authentication");
    if is_login { "the server refuses the login".to_owned() } else { format!("the server refuses: {reason}") }
}

impl Connection {
    /// The next frame. Waits as long as the socket's read timeout.
    pub(super) fn read_frame(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = self.channel.next_frame()? {
                return Ok(frame);
            }
            match self.channel.read_from(&mut self.stream) {
                Ok(0) => return Err("the connection was lost".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(in_words(&error)),
            }
        }
    }

    /// Polls the socket until `until` before the caller blocks in a read: a blocked thread wakes late. Yields to other threads.
    pub(super) fn poll_for_frame(&mut self, until: Instant) -> Result<(), String> {
        if !self.channel.incoming.is_empty() || Instant::now() >= until {
            return Ok(());
        }
        self.stream.set_nonblocking(true).map_err(|error| in_words(&error))?;
        let read = loop {
            match self.channel.read_from(&mut self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= until {
                        break Ok(1);
                    }
                    thread::yield_now();
                }
                read => break read,
            }
        };
        self.stream.set_nonblocking(false).map_err(|error| in_words(&error))?;
        match read {
            Ok(0) => Err("the connection was lost".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(in_words(&error)),
        }
    }

    /// Sends the written frames.
    pub(super) fn send(&mut self) -> Result<(), String> {
        self.channel.write_to(&mut self.stream).map_err(|error| in_words(&error))
    }
}

/// A new unique inbox subject.
pub(super) fn new_inbox() -> String {
    let random = [0, 1].map(|it| RandomState::new().hash_one(it));
    format!("_INBOX.{:016x}{:016x}", random[0], random[1])
}

/// The reason of a failed read or write, in the words of the bridge.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer".to_owned(),
        _ => "the connection was lost".to_owned(),
    }
}

impl Channel {
    fn new() -> Self {
        let buffer = vec![0; READ].into_boxed_slice();
        Self { tls: None, buffer, incoming: BytesMut::new(), outgoing: Vec::new() }
    }

    /// The next complete frame in the buffer.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        frame::next(&mut self.incoming)
    }

    /// Reads available bytes into the buffer. 0 at the end of the connection.
    pub(super) fn read_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        let read = loop {
            let Some(tls) = &mut self.tls else { break stream.read(&mut self.buffer)? };
            // A read of the socket may complete no TLS record.
            match tls.reader().read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break read?,
            }
            if tls.read_tls(stream)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        };
        if self.incoming.is_empty() && self.incoming.capacity() > KEPT {
            self.incoming = BytesMut::new();
        }
        self.incoming.extend_from_slice(&self.buffer[..read]);
        Ok(read)
    }

    /// Whether unsent bytes are left.
    pub(super) fn is_blocked(&self) -> bool {
        !self.outgoing.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends the written frames. After an error a part may have been sent.
    pub(super) fn write_to(&mut self, stream: &mut impl Write) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            let mut sent = 0;
            let result = loop {
                let left = &self.outgoing[sent..];
                if left.is_empty() {
                    break Ok(());
                }
                match stream.write(left) {
                    Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Err(error),
                }
            };
            self.outgoing.drain(..sent);
            self.outgoing.shrink_to(KEPT);
            return result;
        };
        loop {
            let taken = tls.writer().write(&self.outgoing)?;
            self.outgoing.drain(..taken);
            self.outgoing.shrink_to(KEPT);
            while tls.wants_write() {
                tls.write_tls(stream)?;
            }
            if self.outgoing.is_empty() {
                return Ok(());
            }
        }
    }
}

/// A socket that the runtime watches; reads and writes do not block.
pub(super) struct WatchedSocket(tokio::net::TcpStream);

impl WatchedSocket {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream).map(Self)
    }

    /// Waits until the socket is readable, or with `wants_room` also until it is writable.
    pub(super) async fn ready(&self, wants_room: bool) -> io::Result<()> {
        let interest = if wants_room { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.0.ready(interest).await.map(drop)
    }
}

impl Read for &WatchedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for &WatchedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused() {
        for old in ["1.4.1", "2.9.10", "2.10.29"] {
            let problem = check_version(old).expect_err(old);
            assert_eq!(problem, format!("nats-server {old} is too old, 2.11 or later is required"));
        }
        for new in ["2.11.0", "2.11.0-RC.1", "2.15.1", "3.0.0", "", "dev"] {
            assert_eq!(check_version(new), Ok(()), "{new}");
        }
    }

    #[test]
    fn the_documentation_names_the_oldest_server() {
        let (major, minor) = OLDEST_SERVER;
        for text in [include_str!("../lib.rs"), include_str!("../provider.rs")] {
            assert!(text.contains(&format!("{major}.{minor}")));
        }
    }
}
