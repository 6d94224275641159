//! Connections of our own, for what goes by the thousand: how one is made, and what is read and written over it, in the clear or not. The
//! client library, which has one for everything else, makes a task's work of each message. Who waits for the socket is told by who uses it.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use async_nats::ServerAddr;
use async_nats::rustls::ClientConnection;
use bytes::BytesMut;
use data_encoding::BASE64URL_NOPAD;
use eventbroker::provider::Backoff;
use nkeys::KeyPair;
use serde::Deserialize;
use serde_json::json;

use crate::tls;
use crate::wire::{self, Frame};

/// Bytes that are read at a time.
const READ: usize = 64 * 1024;
/// Bytes of room that are kept for the next messages, however large the last ones were.
const KEPT: usize = 1 << 20;

/// How to log in. Shows nothing of it.
#[derive(Clone, Default)]
pub(crate) struct Login {
    pub(crate) user_and_password: Option<(String, String)>,
    pub(crate) token: Option<String>,
    pub(crate) nkey: Option<String>,
    /// The text of a credentials file.
    pub(crate) credentials: Option<String>,
    /// Whether it is only done over TLS, and the file with the certificates that the servers' are checked with.
    pub(crate) tls: bool,
    pub(crate) tls_ca_file: Option<PathBuf>,
}

/// Where the servers are, and who asks.
pub(crate) struct Address {
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) login: Login,
    /// What the servers call this provider.
    pub(crate) name: String,
    /// Where the servers are, without secrets.
    pub(crate) place: String,
    /// The server that is asked first.
    first: AtomicUsize,
}

/// See the module's page.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) channel: Channel,
    /// Bytes of the largest message that the server takes.
    pub(crate) max_payload: usize,
    server_id: String,
}

/// What has come and was not read, and what is to be sent.
pub(crate) struct Channel {
    tls: Option<Box<ClientConnection>>,
    /// What is read goes through here.
    buffer: Box<[u8]>,
    incoming: BytesMut,
    /// What is written here is sent next.
    pub(crate) outgoing: Vec<u8>,
}

/// What a server says of itself.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Greeting {
    server_id: String,
    max_payload: usize,
    tls_required: bool,
    nonce: String,
}

impl Address {
    pub(crate) fn new(servers: Vec<ServerAddr>, login: Login, name: String, place: String) -> Self {
        Self { servers, login, name, place, first: AtomicUsize::new(0) }
    }

    /// Connects to one of the servers: to that with an id, if that is there. Blocks at most 3 s for each server.
    pub(crate) fn connect(&self, wanted: Option<&str>) -> Result<Connection, String> {
        let (mut other, mut problem) = (None, None);
        let first = self.first.load(Ordering::Relaxed);
        for at in 0..self.servers.len() {
            let at = (first + at) % self.servers.len();
            match self.connect_to(&self.servers[at]) {
                Ok(connection) if wanted.is_none_or(|wanted| connection.server_id == wanted) => {
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
        let stream = tcp(server).map_err(|_| "can't be reached".to_owned())?;
        let mut connection = Connection { stream, channel: Channel::new(), max_payload: 0, server_id: String::new() };
        let greeting = loop {
            match connection.frame()? {
                Frame::Info(text) => {
                    break serde_json::from_slice::<Greeting>(&text).map_err(|error| error.to_string())?;
                }
                Frame::Refusal(reason) => return Err(refused(&reason)),
                _ => {}
            }
        };
        let is_secret = self.login.tls || server.tls_required();
        if is_secret || greeting.tls_required {
            let Connection { stream, channel, .. } = &mut connection;
            channel.tls = Some(Box::new(tls::greet(server.host(), stream, self.login.tls_ca_file.as_deref())?));
        }
        (connection.max_payload, connection.server_id) = (greeting.max_payload, greeting.server_id);
        let out = &mut connection.channel.outgoing;
        wire::connect(out, &self.introduction(&greeting.nonce)?);
        wire::ping(out);
        connection.send()?;
        loop {
            match connection.frame()? {
                Frame::Pong => return Ok(connection),
                Frame::Refusal(reason) => return Err(refused(&reason)),
                Frame::Ping => wire::pong(&mut connection.channel.outgoing),
                _ => {}
            }
        }
    }

    /// Who we are.
    fn introduction(&self, nonce: &str) -> Result<serde_json::Value, String> {
        let login = &self.login;
        let mut said = json!({
            "verbose": false, "pedantic": false, "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "protocol": 1,
            "name": self.name, "echo": true, "headers": true, "no_responders": true, "tls_required": login.tls,
        });
        if let Some((user, password)) = &login.user_and_password {
            (said["user"], said["pass"]) = (json!(user), json!(password));
        }
        if let Some(token) = &login.token {
            said["auth_token"] = json!(token);
        }
        let behind = |text: &str, mark: &str| text.split_once(mark)?.1.split_whitespace().nth(1).map(str::to_owned);
        let mut seed = login.nkey.clone();
        if let Some(text) = &login.credentials {
            said["jwt"] = json!(behind(text, "BEGIN NATS USER JWT"));
            seed = behind(text, "BEGIN USER NKEY SEED");
        }
        if let Some(seed) = seed {
            let unsigned = |_| "the login could not be signed".to_owned();
            let pair = KeyPair::from_seed(&seed).map_err(unsigned)?;
            let signature = pair.sign(nonce.as_bytes()).map_err(unsigned)?;
            said["sig"] = json!(BASE64URL_NOPAD.encode(&signature));
            if login.nkey.is_some() {
                said["nkey"] = json!(pair.public_key());
            }
        }
        Ok(said)
    }
}

/// The first of the server's addresses that somebody listens at.
fn tcp(server: &ServerAddr) -> io::Result<TcpStream> {
    let mut problem = io::Error::new(io::ErrorKind::NotFound, "the name of the server is not known");
    for address in (server.host(), server.port()).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Backoff::CONNECT_LIMIT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Backoff::CONNECT_LIMIT))?;
                stream.set_write_timeout(Some(Backoff::CONNECT_LIMIT))?;
                return Ok(stream);
            }
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn refused(reason: &str) -> String {
    let is_login = reason.to_ascii_lowercase().contains("authorization") || reason.contains("Authentication");
    if is_login { "the server refuses the login".to_owned() } else { format!("the server refuses: {reason}") }
}

impl Connection {
    /// The next thing that the server writes. Waits for it as long as the socket lets it.
    pub(crate) fn frame(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = self.channel.next()? {
                return Ok(frame);
            }
            match self.channel.read_from(&mut self.stream) {
                Ok(0) => return Err("the connection was lost".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(in_words(&error)),
            }
        }
    }

    /// Looks until then for something that has come, giving way to other threads, before it is slept for: who sleeps is woken late.
    pub(crate) fn look_for_frame(&mut self, until: Instant) -> Result<(), String> {
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

    /// Sends what is to be sent.
    pub(crate) fn send(&mut self) -> Result<(), String> {
        self.channel.write_to(&mut self.stream).map_err(|error| in_words(&error))
    }
}

/// An address that nobody else has.
pub(crate) fn new_inbox() -> String {
    let random = [0, 1].map(|it| RandomState::new().hash_one(it));
    format!("_INBOX.{:016x}{:016x}", random[0], random[1])
}

/// Why nothing could be read or written.
pub(crate) fn in_words(error: &io::Error) -> String {
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

    /// The next thing that has come in full.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, String> {
        wire::next(&mut self.incoming)
    }

    /// Reads what has come. 0 at the end of the connection.
    pub(crate) fn read_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        let read = loop {
            let Some(tls) = &mut self.tls else { break stream.read(&mut self.buffer)? };
            // One record may be here already, or a part of one that tells nothing.
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

    /// Whether something that was to be sent is still here.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.outgoing.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Writes what is to be sent. After an error some of it may have been.
    pub(crate) fn write_to(&mut self, stream: &mut impl Write) -> io::Result<()> {
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

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server_id", &self.server_id).finish_non_exhaustive()
    }
}
