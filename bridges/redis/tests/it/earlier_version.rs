//! A stream of an earlier version of the bridge: its released deliveries, its figures and its names keep working.

use std::collections::BTreeSet;

use crate::support::{PATIENCE, ask, client, event, listen, start, wait_until};
use eventbroker::error::StartError;
use eventbroker::{EventId, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;
use redis::Value;

const XGROUP: &str = "resolvespec-workers.all";

/// An earlier version called the consumer of released deliveries `~`.
#[test]
fn released_deliveries_of_an_earlier_version_are_claimed_at_once() {
    for (partitions, stream) in [(0, "old"), (1, "{old}:p0")] {
        let server = Server::start();
        let mut client = client(&server.url());
        let redis = Redis::new(server.url()).stream_name("old").partitions(partitions);
        let options = || SubscribeOptions::new("a.*").name("all");
        let broker = start(&redis);
        let id = broker.subscribe_with(options(), |_| ()).expect("a subscription");
        broker.unsubscribe(id).expect("it is there");
        let sent: BTreeSet<EventId> = (0..5).map(|_| broker.publish(event("a.b")).expect("it is stored").id).collect();
        assert!(broker.stop(PATIENCE).is_clean());
        // Three are released, two are unread.
        ask::<Value>(&mut client, &["XREADGROUP", "GROUP", XGROUP, "~", "COUNT", "3", "STREAMS", stream, ">"]);
        let figures = ["seen", "read", "ended", "given", "taken"].map(|name| format!("{stream}:{name}"));
        for key in &figures {
            ask::<u64>(&mut client, &["HSET", key, XGROUP, "- 0 0 0-0 0 0 0-0 0"]);
        }
        let broker = start(&redis);
        let calls = listen(&broker, options());
        let came: BTreeSet<EventId> =
            sent.iter().map(|_| calls.recv_timeout(PATIENCE).expect("it is called")).collect();
        assert_eq!(came, sent);
        wait_until("nothing is pending", || {
            let pending: Vec<Value> = ask(&mut client, &["XPENDING", stream, XGROUP]);
            pending[0] == Value::Int(0)
        });
        let left = figures.iter().filter(|key| ask::<bool>(&mut client, &["EXISTS", key])).count();
        assert_eq!(left, 0, "the old figures are removed");
        let stats = broker.back_end_stats().expect("it answers");
        assert_eq!((stats.entries_lost, stats.losses_unknown), (0, 0));
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

/// The name of the consumer of released deliveries is reserved.
#[test]
fn an_instance_with_a_reserved_name_is_refused() {
    let server = Server::start();
    for name in ["released", "~"] {
        let provider = Redis::new(server.url()).open().expect("it opens");
        let started = eventbroker::Broker::builder().instance_id(name).provider(provider).start();
        assert!(matches!(started.err(), Some(StartError::InstanceTaken { id }) if id == name), "{name}");
    }
}
