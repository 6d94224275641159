//! Processes that share a Redis stream and die (the cases of every provider), and a server that dies.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::processes::{Place, Site, run};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

/// One server, started when it is needed: not by members.
static SERVER: OnceLock<Server> = OnceLock::new();

struct Streams;

/// The server's address and the name of a stream.
struct Stream(String);

impl Site for Streams {
    fn fresh(&self) -> Box<dyn Place> {
        let server = SERVER.get_or_init(Server::start);
        Box::new(Stream(format!("{} {}", server.url(), server.stream())))
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        let (url, stream) = address.split_once(' ').expect("an address and a stream");
        Redis::new(url).stream_name(stream).lease_time(lease).max_len(0).open().expect("it opens")
    }

    fn keeps_order_across_members(&self) -> bool {
        false
    }
}

impl Place for Stream {
    fn address(&self) -> &str {
        &self.0
    }

    /// Whatever dies, nobody counts a loss.
    fn check(&self) {
        let (url, stream) = self.0.split_once(' ').expect("an address and a stream");
        let mut client = redis::Client::open(url).and_then(|it| it.get_connection()).expect("it connects");
        let lost = redis::cmd("HGETALL").arg(format!("{stream}:lost")).query::<Vec<(String, u64)>>(&mut client);
        assert_eq!(lost.expect("an answer"), []);
    }

    fn disturb(&self, _round: usize) -> Option<&'static str> {
        let server = SERVER.get().expect("it runs");
        server.crash();
        thread::sleep(Duration::from_millis(300));
        server.up();
        Some("crashed")
    }
}

fn main() {
    run(&Streams, &[]);
}
