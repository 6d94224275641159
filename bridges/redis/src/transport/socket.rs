//! One connection to the server. The client library packs commands and parses values; the connection is the bridge's own, because
//! entries are read by the thousand, and are parsed where they lie in the buffer ([`reply`](super::reply)).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker_bridge_kit::tcp;
use redis::io::tcp::socket2::SockRef;
use redis::{ConnectionAddr, ConnectionInfo, ConnectionLike, ErrorKind, RedisError, RedisResult, Value, cmd};

use super::reply::{Piece, Reader};
#[cfg(feature = "tls")]
use super::tls::{Stream as TlsStream, Tls};

/// The most time for one call.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// The most time for which sent data may stay unacknowledged by the other machine.
const SILENCE: Duration = Duration::from_secs(5);

/// The address of the server, and the login.
pub(crate) struct Address {
    pub(crate) info: ConnectionInfo,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

/// A connection that has logged in.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    reader: Reader,
    database: i64,
}

/// A socket, or TLS over one.
trait Stream: Read + Write + Send {
    /// Makes reads return at once, or block again. Returns false if the stream can't: TLS.
    fn set_nonblocking(&self, _it: bool) -> io::Result<bool> {
        Ok(false)
    }
}

impl Stream for TcpStream {
    fn set_nonblocking(&self, it: bool) -> io::Result<bool> {
        self.set_nonblocking(it).map(|()| true)
    }
}

impl Stream for UnixStream {
    fn set_nonblocking(&self, it: bool) -> io::Result<bool> {
        self.set_nonblocking(it).map(|()| true)
    }
}

#[cfg(feature = "tls")]
impl Stream for TlsStream {}

impl Address {
    /// Connects and logs in.
    pub(crate) fn connect(&self) -> RedisResult<Connection> {
        let stream: Box<dyn Stream> = match self.info.addr() {
            ConnectionAddr::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(CALL_LIMIT))?;
                stream.set_write_timeout(Some(CALL_LIMIT))?;
                Box::new(stream)
            }
            ConnectionAddr::Tcp(host, port) => self.secure(host, connect(host, *port)?)?,
            _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        };
        let settings = self.info.redis_settings();
        let mut connection = Connection { stream, reader: Reader::default(), database: settings.db() };
        if let Some(password) = settings.password() {
            cmd("AUTH").arg(settings.username()).arg(password).query::<()>(&mut connection).map_err(refused_login)?;
        }
        if settings.db() != 0 {
            cmd("SELECT").arg(settings.db()).query::<()>(&mut connection)?;
        }
        Ok(connection)
    }

    #[cfg(feature = "tls")]
    fn secure(&self, host: &str, stream: TcpStream) -> RedisResult<Box<dyn Stream>> {
        match &self.tls {
            Some(tls) => Ok(Box::new(tls.handshake(host, stream)?)),
            None => Ok(Box::new(stream)),
        }
    }

    #[cfg(not(feature = "tls"))]
    fn secure(&self, _host: &str, stream: TcpStream) -> RedisResult<Box<dyn Stream>> {
        Ok(Box::new(stream))
    }
}

fn refused_login(error: RedisError) -> RedisError {
    match error.code() {
        Some(_) => (ErrorKind::AuthenticationFailed, "authentication failed", error.to_string()).into(),
        None => error,
    }
}

/// Connects to a host. Calls on the socket have limits.
fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = tcp::connect(host, port)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(SILENCE))?;
    stream.set_read_timeout(Some(CALL_LIMIT))?;
    stream.set_write_timeout(Some(CALL_LIMIT))?;
    Ok(stream)
}

impl Connection {
    /// Sends commands. The caller reads their replies, in order.
    pub(crate) fn send(&mut self, commands: &[u8]) -> RedisResult<()> {
        self.stream.write_all(commands)?;
        Ok(self.stream.flush()?)
    }

    /// Polls for a reply for up to `limit`, yielding to other threads: a thread that sleeps in a read is woken late. Does nothing over TLS.
    pub(crate) fn poll_reply(&mut self, limit: Duration) -> RedisResult<()> {
        if !self.stream.set_nonblocking(true)? {
            return Ok(());
        }
        let began = Instant::now();
        while !self.reader.has_data(&mut self.stream)? && began.elapsed() < limit {
            thread::yield_now();
        }
        self.stream.set_nonblocking(false)?;
        Ok(())
    }

    /// Reads the next piece of a reply in place.
    pub(crate) fn piece(&mut self) -> RedisResult<Piece<'_>> {
        self.reader.piece(&mut self.stream)
    }

    /// Reads a whole reply. A refusal is a reply too.
    pub(crate) fn value(&mut self) -> RedisResult<Value> {
        self.reader.value(&mut self.stream)
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.send(command)?;
        self.value()
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        self.send(commands)?;
        let mut refused = None;
        for _ in 0..offset {
            refused = refused.or(self.value()?.extract_error().err());
        }
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.value()?);
        }
        refused.map_or(Ok(values), Err)
    }

    fn get_db(&self) -> i64 {
        self.database
    }

    fn check_connection(&mut self) -> bool {
        cmd("PING").query::<()>(self).is_ok()
    }

    fn is_open(&self) -> bool {
        true
    }
}
