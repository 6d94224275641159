//! A cluster of three NATS servers on this machine, each with its own folder and with routes to the others.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, Server};
use crate::port;

/// The number of servers. Two of three are a quorum.
const SERVERS: usize = 3;
/// A stream that is created and deleted at the start, to check that all servers take part.
const TRIAL: &str = "trial";

/// A running cluster. Killed and removed on drop.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts a cluster. Waits until every server knows the meta leader, and a stream with three replicas can be
    /// created.
    pub fn start() -> Self {
        let routes: Vec<u16> = (0..SERVERS).map(|_| port::free()).collect();
        let others: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let others = others.join(", ");
        let server = |(number, port): (usize, &u16)| {
            let server = Server::prepare("127.0.0.1", &[]);
            server.configure(&format!(
                "server_name: {}\ncluster {{ name: cluster, listen: \"127.0.0.1:{port}\", routes: [{others}] }}",
                name(number)
            ));
            server.launch();
            server
        };
        let cluster = Self { servers: routes.iter().enumerate().map(server).collect() };
        cluster.wait_for_leader();
        let deadline = Instant::now() + PATIENCE;
        let stream = format!("{{\"name\":\"{TRIAL}\",\"subjects\":[\"{TRIAL}\"],\"num_replicas\":{SERVERS}}}");
        let is_done = |verb: &str, body: &str| {
            ask(cluster.server(0), &format!("STREAM.{verb}.{TRIAL}"), body).is_some_and(|it| !it.contains("\"error\""))
        };
        while !(is_done("CREATE", &stream) && is_done("DELETE", "")) {
            assert!(Instant::now() < deadline, "the cluster is not complete: {}", cluster.server(0).log());
            thread::sleep(Duration::from_millis(20));
        }
        cluster
    }

    /// Waits until every server knows the meta leader.
    pub fn wait_for_leader(&self) {
        let deadline = Instant::now() + PATIENCE;
        for server in &self.servers {
            while ask(server, "INFO", "").is_none_or(|info| info.contains("\"error\"")) {
                assert!(Instant::now() < deadline, "no meta leader: {}", server.log());
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The URLs of all servers, comma-separated, as the bridge takes them.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.servers.iter().map(Server::url).collect();
        urls.join(",")
    }

    /// One of the servers.
    pub fn server(&self, number: usize) -> &Server {
        &self.servers[number]
    }

    /// The numbers of the servers, the leader of a stream last. Waits until the stream has a leader.
    pub fn followers_and_leader(&self, stream: &str) -> [usize; SERVERS] {
        let leader = self.leader(&format!("STREAM.INFO.{stream}"));
        [(leader + 1) % SERVERS, (leader + 2) % SERVERS, leader]
    }

    /// The number of the leader of a stream or consumer, by an INFO request of the API. Waits until there is a leader.
    pub fn leader(&self, question: &str) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.servers.iter().find_map(|server| ask(server, question, ""));
            let leads = |number: &usize| {
                told.as_ref().is_some_and(|it| it.contains(&format!("\"leader\":\"{}\"", name(*number))))
            };
            if let Some(leader) = (0..SERVERS).find(leads) {
                return leader;
            }
            assert!(Instant::now() < deadline, "no leader: {question}: {told:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn name(number: usize) -> String {
    format!("server{number}")
}

/// Sends a request to the API of a server, and returns the reply; `None` if there is none within 1 s.
fn ask(server: &Server, verb: &str, body: &str) -> Option<String> {
    let mut socket = TcpStream::connect((server.host.as_str(), server.port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let length = body.len();
    let question =
        format!("CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.{verb} answer {length}\r\n{body}\r\n");
    socket.write_all(question.as_bytes()).ok()?;
    let mut lines = BufReader::new(socket).lines().map_while(Result::ok);
    lines.find(|line| line.starts_with("MSG answer"))?;
    lines.next()
}
