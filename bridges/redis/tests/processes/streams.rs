//! Streams of one server, with or without partitions, for processes that share one of them.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::processes::{Fault, Place, Site};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

/// A factory of streams with these settings.
pub(crate) struct Streams {
    partitions: u32,
    /// The number of handled entries that the stream keeps. 0 keeps all.
    max_len: u64,
    /// Started with the first stream. Members do not start a server.
    server: OnceLock<Arc<Server>>,
}

impl Streams {
    pub(crate) const fn new(partitions: u32, max_len: u64) -> Self {
        Self { partitions, max_len, server: OnceLock::new() }
    }
}

/// An address (server, stream, partitions, `max_len`) and its server.
struct Stream(String, Arc<Server>);

impl Site for Streams {
    fn fresh(&self) -> Box<dyn Place> {
        let server = self.server.get_or_init(|| Arc::new(Server::start()));
        let address = format!("{} {} {} {}", server.url(), server.stream(), self.partitions, self.max_len);
        Box::new(Stream(address, Arc::clone(server)))
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        let [url, stream, partitions, max_len] = parts(address);
        let redis = Redis::new(url).stream_name(stream).partitions(partitions.parse().expect("a number"));
        redis.lease_time(lease).max_len(max_len.parse().expect("a number")).open().expect("it opens")
    }

    fn keeps_order_across_members(&self) -> bool {
        self.partitions > 0
    }
}

impl Place for Stream {
    fn address(&self) -> &str {
        &self.0
    }

    /// The server has recorded no loss.
    fn check(&self) {
        let [url, stream, partitions, _] = parts(&self.0);
        let streams = match partitions.parse().expect("a number") {
            0 => vec![stream.to_owned()],
            partitions => (0..partitions).map(|it| format!("{{{stream}}}:p{it}")).collect(),
        };
        let mut client = redis::Client::open(url).and_then(|it| it.get_connection()).expect("it connects");
        for stream in streams {
            let lost = redis::cmd("HGETALL").arg(format!("{stream}:lost")).query::<Vec<(String, u64)>>(&mut client);
            assert_eq!(lost.expect("an answer"), [], "{stream}");
        }
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
        let [_, stream, partitions, max_len] = parts(&self.0);
        format!("redis://127.0.0.1:{port} {stream} {partitions} {max_len}")
    }
}

fn parts(address: &str) -> [&str; 4] {
    let parts: Vec<&str> = address.split(' ').collect();
    parts.try_into().expect("an address, a stream, its partitions and its length")
}
