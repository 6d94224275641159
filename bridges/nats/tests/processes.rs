//! Processes that share a JetStream stream and die (the cases of every provider), and a server that dies or stops for a while.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::processes::{Place, Site, run};
use eventbroker_nats::Nats;

/// One server, started when it is needed: not by members.
static SERVER: OnceLock<Server> = OnceLock::new();

struct Streams;

/// The server's address and the name of a stream.
struct Stream(String);

impl Site for Streams {
    fn fresh(&self) -> Box<dyn Place> {
        let server = SERVER.get_or_init(Server::start);
        Box::new(Stream(format!("{} {}", server.url(), server.fresh_name())))
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        let (url, stream) = address.split_once(' ').expect("an address and a stream");
        Nats::new(url).stream_name(stream).subject_prefix(stream).lease_time(lease).open().expect("it opens")
    }

    fn keeps_order_across_members(&self) -> bool {
        false
    }
}

impl Place for Stream {
    fn address(&self) -> &str {
        &self.0
    }

    fn disturb(&self, round: usize) -> Option<&'static str> {
        let server = SERVER.get().expect("it runs");
        if round.is_multiple_of(2) {
            server.crash();
            thread::sleep(Duration::from_millis(300));
            server.up();
            return Some("crashed");
        }
        server.freeze(true);
        thread::sleep(Duration::from_millis(1_500));
        server.freeze(false);
        Some("frozen")
    }
}

fn main() {
    run(&Streams, &[]);
}
