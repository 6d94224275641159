//! One connection to the server: how it is made, and what is said and read over it. The client library packs commands and makes values of
//! answers; the connection is our own, because what is read by the thousand is read where it lies ([`resp`](crate::resp)).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::Backoff;
use redis::io::tcp::socket2::SockRef;
use redis::{ConnectionAddr, ConnectionInfo, ConnectionLike, ErrorKind, RedisError, RedisResult, Value, cmd};

use crate::resp::{Piece, Reader};
#[cfg(feature = "tls")]
use crate::tls::{Stream as TlsStream, Tls};

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long sent data may stay unanswered by the other machine.
const SILENCE: Duration = Duration::from_secs(5);

/// Where the server is, and who asks.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) info: ConnectionInfo,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

/// See the module's page.
pub(crate) struct Connection {
    stream: Stream,
    reader: Reader,
    database: i64,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

impl Address {
    /// Connects, and says who asks.
    pub(crate) fn connect(&self) -> RedisResult<Connection> {
        let stream = match self.info.addr() {
            ConnectionAddr::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(CALL_LIMIT))?;
                stream.set_write_timeout(Some(CALL_LIMIT))?;
                Stream::Unix(stream)
            }
            ConnectionAddr::Tcp(host, port) => self.secure(host, tcp(host, *port)?)?,
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
    fn secure(&self, host: &str, stream: TcpStream) -> RedisResult<Stream> {
        match &self.tls {
            Some(tls) => Ok(Stream::Tls(Box::new(tls.greet(host, stream)?))),
            None => Ok(Stream::Tcp(stream)),
        }
    }

    #[cfg(not(feature = "tls"))]
    fn secure(&self, _host: &str, stream: TcpStream) -> RedisResult<Stream> {
        Ok(Stream::Tcp(stream))
    }
}

fn refused_login(error: RedisError) -> RedisError {
    match error.code() {
        Some(_) => (ErrorKind::AuthenticationFailed, "authentication failed", error.to_string()).into(),
        None => error,
    }
}

/// The first of the host's addresses that somebody listens at.
fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut problem = io::Error::new(io::ErrorKind::NotFound, "the name of the host stands for no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Backoff::CONNECT_LIMIT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_user_timeout(Some(SILENCE))?;
                stream.set_read_timeout(Some(CALL_LIMIT))?;
                stream.set_write_timeout(Some(CALL_LIMIT))?;
                return Ok(stream);
            }
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

impl Connection {
    /// Sends commands. Their answers are to be read, in their order.
    pub(crate) fn send(&mut self, commands: &[u8]) -> RedisResult<()> {
        self.stream.write_all(commands)?;
        Ok(self.stream.flush()?)
    }

    /// Looks for an answer so long, giving way to other threads, before it is slept for: who sleeps is woken late. Over TLS it does not look.
    pub(crate) fn look_for_answer(&mut self, limit: Duration) -> RedisResult<()> {
        if !self.stream.is_plain() {
            return Ok(());
        }
        self.stream.set_nonblocking(true)?;
        let began = Instant::now();
        while !self.reader.has_come(&mut self.stream)? && began.elapsed() < limit {
            thread::yield_now();
        }
        Ok(self.stream.set_nonblocking(false)?)
    }

    /// Reads the next piece of an answer where it lies.
    pub(crate) fn piece(&mut self) -> RedisResult<Piece<'_>> {
        self.reader.piece(&mut self.stream)
    }

    /// Reads an answer. A refusal is one, too.
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

impl Stream {
    fn is_plain(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    fn set_nonblocking(&self, it: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(it),
            Self::Unix(stream) => stream.set_nonblocking(it),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.sock.set_nonblocking(it),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("database", &self.database).finish_non_exhaustive()
    }
}
