//! Another client of the same server, which writes the NATS protocol itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use eventbroker_conformance::nats::Server;

/// A connection that subscribes to the subject `answers`.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn of(server: &Server) -> Self {
        let mut client = Self(BufReader::new(TcpStream::connect(("127.0.0.1", server.port())).expect("it connects")));
        client.write("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB answers 1\r\n");
        client
    }

    fn write(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("it is sent");
    }

    /// Publishes a message and returns the server's answer.
    pub(crate) fn ask(&mut self, subject: &str, headers: &str, body: &str) -> String {
        let head = if headers.is_empty() { String::new() } else { format!("NATS/1.0\r\n{headers}\r\n") };
        let all = head.len() + body.len();
        let verb = if head.is_empty() { "PUB" } else { "HPUB" };
        let sizes = if head.is_empty() { all.to_string() } else { format!("{} {all}", head.len()) };
        self.write(&format!("{verb} {subject} answers {sizes}\r\n{head}{body}\r\n"));
        let mut lines = self.0.by_ref().lines().map(|line| line.expect("an answer"));
        lines.find(|line| line.starts_with("MSG answers")).expect("an answer");
        lines.next().expect("the payload")
    }

    /// Pulls one message from a consumer, and returns its `HMSG` line.
    pub(crate) fn take(&mut self, consumer: &str) -> String {
        let body = r#"{"batch":1}"#;
        self.write(&format!("PUB $JS.API.CONSUMER.MSG.NEXT.{consumer} answers {}\r\n{body}\r\n", body.len()));
        let mut lines = self.0.by_ref().split(b'\n').map(|line| line.expect("an answer"));
        let line = lines.find(|line| line.starts_with(b"HMSG ")).expect("an answer");
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Sends an API request, such as the info of a consumer or a stream, and returns the answer.
    pub(crate) fn info(&mut self, request: &str) -> String {
        self.ask(&format!("$JS.API.{request}"), "", "")
    }
}
