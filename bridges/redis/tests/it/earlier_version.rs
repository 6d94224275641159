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

/// Values as an earlier version has stored them.
const RECORD: &str = r#"{"after":["0-0"],"pattern":"a.*","name":"all","instance":"","owner":"","group":"resolvespec-workers","durable":false}"#;
const LETTER: &str = r#"{"unit":"resolvespec-workers.all","name":"all","id":"0192d3a0-5f6e-7c0e-9a53-0f6a4e9d7c11","event":"{\"id\":\"0192d3a0-5f6e-7c0e-9a53-0f6a4e9d7c11\",\"source\":\"system\",\"type\":\"a.dies\",\"status\":\"pending\",\"retry_count\":0,\"payload\":7,\"user_id\":0,\"session_id\":\"\",\"instance_id\":\"worker\",\"schema\":\"\",\"entity\":\"\",\"operation\":\"\",\"created_at\":\"2026-11-30T10:57:47.665359918Z\",\"metadata\":{}}","reason":"permanent","attempts":1,"errors":[[1,"2026-11-30T10:57:47.671082092Z","dead"]],"dead_at":"2126-11-30T10:57:47.671156687Z","requeues":0}"#;
const RETRY: &str = r#"{"id":"0192d3a0-5f6e-7c0e-9a53-0f6a4e9d7c12","event":"{\"id\":\"0192d3a0-5f6e-7c0e-9a53-0f6a4e9d7c12\",\"source\":\"system\",\"type\":\"a.later\",\"status\":\"pending\",\"retry_count\":0,\"payload\":7,\"user_id\":0,\"session_id\":\"\",\"instance_id\":\"worker\",\"schema\":\"\",\"entity\":\"\",\"operation\":\"\",\"created_at\":\"2026-11-30T10:57:47.665813128Z\",\"metadata\":{}}","requeues":0,"attempts":1,"errors":"[[1,\"2026-11-30T10:57:47.671126621Z\",\"later\"]]","entry":"old 1796036267665-1"}"#;

#[test]
fn recorded_dead_letters_and_deferred_retries_work() {
    const GROUP: &str = "resolvespec-workers";
    let server = Server::start();
    let mut client = client(&server.url());
    let again = format!("old:again:{XGROUP}");
    let mut send = |command: &[&str]| ask::<Value>(&mut client, command);
    send(&["XGROUP", "CREATE", "old", XGROUP, "$", "MKSTREAM"]);
    send(&["XGROUP", "CREATE", &again, XGROUP, "0", "MKSTREAM"]);
    send(&["HSET", "old:subscriptions", XGROUP, RECORD]);
    send(&["HSET", "old:letters", "1", LETTER]);
    send(&["SET", "old:letters:last", "1"]);
    send(&["ZADD", &format!("old:letters:of:{GROUP}"), "1", "1"]);
    send(&["HSET", &format!("old:letters:at:{XGROUP}"), "0192d3a0-5f6e-7c0e-9a53-0f6a4e9d7c11", "1"]);
    send(&["ZADD", &format!("old:later:{XGROUP}"), "0", RETRY]);
    let broker = start(&Redis::new(server.url()).stream_name("old"));
    let (sender, calls) = std::sync::mpsc::channel();
    let handler = move |delivery: &eventbroker::Delivery| {
        // The test drops the receiver when it has enough.
        let _ = sender.send((delivery.event().event_type().to_string(), delivery.attempt()));
    };
    broker.subscribe_with(SubscribeOptions::new("a.*").name("all"), handler).expect("a subscription");
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(("a.later".to_owned(), 2)));
    let letters = broker.dead_letters(&Default::default()).expect("it answers");
    assert_eq!((letters.len(), &*letters[0].errors[0].message), (1, "dead"));
    broker.requeue(letters[0].id).expect("it is requeued");
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(("a.dies".to_owned(), 1)));
    assert!(broker.stop(PATIENCE).is_clean());
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
