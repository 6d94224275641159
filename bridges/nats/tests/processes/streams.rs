//! Streams of one server, for processes that share one of them, with or without partitions.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::processes::{Fault, Place, Site};
use eventbroker_nats::Nats;

/// Creates streams with `partitions` partitions, or with none if it is 0.
pub(crate) struct Streams {
    partitions: u32,
    /// Started on first use; members do not use it.
    server: OnceLock<Arc<Server>>,
}

impl Streams {
    pub(crate) const fn new(partitions: u32) -> Self {
        Self { partitions, server: OnceLock::new() }
    }
}

/// The server's address, the stream's name and its number of partitions in one text, and the server.
struct Stream(String, Arc<Server>);

impl Site for Streams {
    fn fresh(&self) -> Box<dyn Place> {
        let server = self.server.get_or_init(|| Arc::new(Server::start()));
        let address = format!("{} {} {}", server.url(), server.fresh_name(), self.partitions);
        Box::new(Stream(address, Arc::clone(server)))
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        let parts: Vec<&str> = address.split(' ').collect();
        let [url, stream, partitions] = parts[..] else { panic!("no address, stream and partitions: {address}") };
        let nats = Nats::new(url).stream_name(stream).subject_prefix(stream);
        nats.partitions(partitions.parse().expect("a number")).lease_time(lease).open().expect("it opens")
    }

    fn keeps_order_across_members(&self) -> bool {
        self.partitions > 0
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
        if fault == Fault::Crash {
            self.1.crash();
            thread::sleep(lasts);
            self.1.up();
        } else {
            self.1.freeze(true);
            thread::sleep(lasts);
            self.1.freeze(false);
        }
    }

    fn port(&self) -> Option<u16> {
        Some(self.1.port())
    }

    fn address_by(&self, port: u16) -> String {
        let (_, rest) = self.0.split_once(' ').expect("an address, a stream and partitions");
        format!("nats://127.0.0.1:{port} {rest}")
    }
}
