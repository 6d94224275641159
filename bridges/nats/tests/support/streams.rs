//! Streams of one server, for processes that share one of them: divided into so many partitions, or not at all.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::processes::{Fault, Place, Site};
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

    fn faults(&self) -> &'static [Fault] {
        &[Fault::Crash, Fault::Freeze]
    }

    fn suffer(&self, fault: Fault, lasts: Duration) {
        let server = SERVER.get().expect("it runs");
        if fault == Fault::Crash {
            server.crash();
            thread::sleep(lasts);
            server.up();
        } else {
            server.freeze(true);
            thread::sleep(lasts);
            server.freeze(false);
        }
    }

    fn port(&self) -> Option<u16> {
        SERVER.get().map(Server::port)
    }

    fn address_by(&self, port: u16) -> String {
        let (_, rest) = self.0.split_once(' ').expect("an address, a stream and partitions");
        format!("nats://127.0.0.1:{port} {rest}")
    }
}
