//! Streams of one server, for processes that share one of them: divided into so many partitions, or not at all.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::processes::{Place, Site};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

/// One server, started when it is needed: not by members.
static SERVER: OnceLock<Server> = OnceLock::new();

/// See the module's page.
pub(crate) struct Streams(pub(crate) u32);

/// The server's address, the name of a stream and its partitions.
struct Stream(String);

impl Site for Streams {
    fn fresh(&self) -> Box<dyn Place> {
        let server = SERVER.get_or_init(Server::start);
        Box::new(Stream(format!("{} {} {}", server.url(), server.stream(), self.0)))
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        let [url, stream, partitions] = parts(address);
        let redis = Redis::new(url).stream_name(stream).partitions(partitions.parse().expect("a number"));
        redis.lease_time(lease).max_len(0).open().expect("it opens")
    }

    fn keeps_order_across_members(&self) -> bool {
        self.0 > 0
    }
}

impl Place for Stream {
    fn address(&self) -> &str {
        &self.0
    }

    /// Whatever dies, nobody counts a loss.
    fn check(&self) {
        let [url, stream, partitions] = parts(&self.0);
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

    fn disturb(&self, _round: usize) -> Option<&'static str> {
        let server = SERVER.get().expect("it runs");
        server.crash();
        thread::sleep(Duration::from_millis(300));
        server.up();
        Some("crashed")
    }
}

fn parts(address: &str) -> [&str; 3] {
    let parts: Vec<&str> = address.split(' ').collect();
    parts.try_into().expect("an address, a stream and its partitions")
}
