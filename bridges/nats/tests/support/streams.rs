//! Streams of one server, for processes that share one of them: divided into so many partitions, or not at all.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::processes::{Place, Site};
use eventbroker_nats::Nats;

/// One server, started when it is needed: not by members.
static SERVER: OnceLock<Server> = OnceLock::new();

/// See the module's page.
pub(crate) struct Streams(pub(crate) u32);

/// The server's address, the name of a stream and its partitions.
struct Stream(String);

impl Site for Streams {
    fn fresh(&self) -> Box<dyn Place> {
        let server = SERVER.get_or_init(Server::start);
        Box::new(Stream(format!("{} {} {}", server.url(), server.fresh_name(), self.0)))
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        let parts: Vec<&str> = address.split(' ').collect();
        let [url, stream, partitions] = parts[..] else { panic!("no address, stream and partitions: {address}") };
        let nats = Nats::new(url).stream_name(stream).subject_prefix(stream);
        nats.partitions(partitions.parse().expect("a number")).lease_time(lease).open().expect("it opens")
    }

    fn keeps_order_across_members(&self) -> bool {
        self.0 > 0
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
