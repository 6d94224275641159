//! Faults of a server, a user or a setting, and changes to the stream by other clients. Each gives a clear error
//! without secrets, loses no event and causes no panic.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, ask, client, event, listen, wait_until};
use eventbroker::{Broker, Event, EventId, PublishError, Source, Status, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::{OpenError, Redis};
use redis::Connection;

fn start(redis: &Redis) -> Broker {
    Broker::builder().instance_id("here").provider(redis.open().expect("it opens")).start().expect("it starts")
}

fn all(pattern: &str) -> SubscribeOptions {
    SubscribeOptions::new(pattern).name("all")
}

#[test]
fn settings_out_of_bounds_are_named() {
    let redis = || Redis::new("redis://127.0.0.1:1");
    let refusal = |redis: Redis| match redis.open() {
        Err(OpenError::Setting(problem)) => problem,
        other => panic!("{other:?}"),
    };
    let short = Duration::from_millis(99);
    assert_eq!(refusal(redis().lease_time(short)), "lease_time: is 99ms, at least 100ms is required");
    assert_eq!(refusal(redis().dedupe_window(short)), "dedupe_window: is 99ms, at least 1s is required");
    let problem = refusal(redis().idle_expiry(Duration::from_secs(29)));
    assert_eq!(problem, "idle_expiry: is 29s, at least 30s is required");
    assert_eq!(refusal(redis().stream_name("")), "stream_name: is 0 bytes long, 1 to 255 are allowed");
    let long = "x".repeat(256);
    assert_eq!(refusal(redis().consumer_group(&long)), "consumer_group: is 256 bytes long, 1 to 255 are allowed");
    for url in ["", "s3cret", "http://u:s3cret@x", "redis://u:s3cret@x:port"] {
        let problem = refusal(Redis::new(url));
        assert!(problem.starts_with("url: ") && !problem.contains("s3cret"), "{problem}");
    }
}

#[test]
fn a_server_that_may_evict_keys_is_refused() {
    let server = Server::with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let error = Redis::new(server.url()).open().expect_err("the server may evict the stream").to_string();
    assert!(error.contains("allkeys-lru") && error.contains("noeviction"), "{error}");
}

/// The documented commands and keys are sufficient.
#[test]
fn a_user_needs_no_more_than_the_documented_rights() {
    let server = Server::start();
    let mut client = client(&server.url());
    let page = include_str!("../../../../docs/redis.md");
    let documented = page.lines().find(|line| line.starts_with("-@all")).expect("a line of commands");
    let mut rights = vec!["ACL", "SETUSER", "broker", "on", ">s3cret", "~shop", "~shop:*"];
    rights.extend(documented.split(' '));
    ask::<()>(&mut client, &rights);
    let url = format!("redis://broker:s3cret@127.0.0.1:{}", server.port());
    let second = Duration::from_secs(1);
    let redis = Redis::new(&url).stream_name("shop").lease_time(second).idle_expiry(second).max_len(1);
    let broker = start(&redis);
    let calls = listen(&broker, all("a.*"));
    let sent: BTreeSet<EventId> = (0..20).map(|_| broker.publish(event("a.b")).expect("it is accepted").id).collect();
    let came: BTreeSet<EventId> = sent.iter().map(|_| calls.recv_timeout(PATIENCE).expect("it is called")).collect();
    assert_eq!(came, sent);
    let id = sent.first().expect("one");
    wait_until("it is settled", || broker.get(id).is_ok_and(|it| it.is_none_or(|it| it.status() == Status::Completed)));
    broker.back_end_stats().expect("it may ask");
    // This `idle_expiry` makes the broker trim once a second.
    wait_until("the stream is trimmed", || ask::<u64>(&mut client, &["XLEN", "shop"]) <= 1);
    assert_eq!(broker.stats().bridge.map(|bridge| bridge.last_error), Some(None));
    assert!(broker.stop(PATIENCE).is_clean());
    ask::<()>(&mut client, &["ACL", "SETUSER", "broker", "-evalsha"]);
    // The server may permit the command later, so the broker starts and reports the error.
    let broker = Broker::builder().provider(redis.open().expect("it opens")).start().expect("it starts");
    let error = broker.stats().bridge.and_then(|bridge| bridge.last_error).expect("an error");
    assert!(error.contains("NOPERM") && !error.contains("s3cret"), "{error}");
    broker.stop(Duration::ZERO);
}

#[test]
fn a_removed_stream_is_made_again() {
    let server = Server::start();
    let mut client = client(&server.url());
    for command in [&["FLUSHALL"][..], &["DEL", "stream"]] {
        let broker = start(&Redis::new(server.url()).stream_name("stream"));
        let calls = listen(&broker, all("a.*"));
        let first = broker.publish(event("a.b")).expect("it is accepted").id;
        assert_eq!(calls.recv_timeout(PATIENCE), Ok(first));
        let errors = broker.stats().bridge.expect("a bridge").errors;
        ask::<()>(&mut client, command);
        let removed = Instant::now();
        let next = broker.publish(event("a.b")).expect("it is accepted").id;
        assert_eq!(calls.recv_timeout(PATIENCE), Ok(next), "{command:?}");
        assert!(removed.elapsed() < Duration::from_secs(1), "{:?}", removed.elapsed());
        let errors = broker.stats().bridge.expect("a bridge").errors - errors;
        assert!(errors <= 5, "{errors} errors: it asks again and again");
        broker.stop(PATIENCE);
    }
}

#[test]
fn a_full_memory_refuses_and_loses_nothing() {
    let server = Server::with(&["--maxmemory", "4mb"]);
    let mut client = client(&server.url());
    let mut config = eventbroker::Config::default();
    config.sync_timeout = Duration::from_millis(300);
    let provider = Redis::new(server.url()).open().expect("it opens");
    let broker = Broker::builder().config(config).provider(provider).start().expect("it starts");
    let calls = listen(&broker, all("a.*"));
    let large = || {
        let payload = "x".repeat(100_000);
        Event::builder(Source::System, "a.b").payload(&payload).build().expect("a valid event")
    };
    let mut sent = BTreeSet::new();
    let refused = loop {
        assert!(sent.len() < 1_000, "the memory is never full");
        match broker.publish(large()) {
            Ok(accepted) => sent.insert(accepted.id),
            Err(error) => break error,
        };
    };
    assert!(matches!(refused, PublishError::Unknown { .. }), "a full memory is no final refusal: {refused}");
    let error = broker.stats().bridge.and_then(|bridge| bridge.last_error).expect("an error");
    assert!(error.contains("OOM"), "{error}");
    ask::<()>(&mut client, &["CONFIG", "SET", "maxmemory", "100mb"]);
    let again = refused.into_event();
    sent.insert(again.id().clone());
    // The first publish may have stored the event.
    wait_until("it is accepted", || broker.publish(again.clone()).is_ok());
    let mut came = BTreeSet::new();
    wait_until("all are handled", || {
        came.extend(calls.try_iter());
        came == sent
    });
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn an_entry_that_is_no_event_blocks_no_other() {
    let server = Server::start();
    let mut client = client(&server.url());
    let broker = start(&Redis::new(server.url()).stream_name("stream"));
    let calls = listen(&broker, all("*"));
    for entry in [&["x", "y"][..], &["event", "{", "type", "a.b"], &["event", "{}", "id", "1", "type", "a.b"]] {
        ask::<String>(&mut client, &[&["XADD", "stream", "*"], entry].concat());
    }
    let id = broker.publish(event("a.b")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id.clone()));
    wait_until("all are acknowledged", || {
        let pending: Vec<redis::Value> = ask(&mut client, &["XPENDING", "stream", "resolvespec-workers.all"]);
        pending[0] == redis::Value::Int(0)
    });
    let listed = broker.list(&eventbroker::query::Filter::default()).expect("it answers").events;
    assert_eq!(listed.iter().map(|event| event.id().clone()).collect::<Vec<_>>(), [id]);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn trimming_keeps_unread_entries() {
    let server = Server::start();
    let mut client = client(&server.url());
    let redis = Redis::new(server.url()).stream_name("stream").max_len(10).lease_time(Duration::from_millis(300));
    // The clean-up runs once per `idle_expiry`, so every second.
    let second = Duration::from_secs(1);
    let looking = Redis::new(server.url()).stream_name("stream").max_len(10).lease_time(second).idle_expiry(second);
    let broker = start(&redis);
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("here"));
    drop(listen(&broker, SubscribeOptions::new("a.*").name("away")));
    let away = broker.stats().subscriptions.iter().find(|it| &*it.name == "away").expect("it is there").id;
    broker.unsubscribe(away).expect("it is there");
    let sent: BTreeSet<EventId> = (0..50).map(|_| broker.publish(event("a.b")).expect("it is accepted").id).collect();
    let came: BTreeSet<EventId> = sent.iter().map(|_| calls.recv_timeout(PATIENCE).expect("it is called")).collect();
    assert_eq!(came, sent);
    // A last use in the far future: the subscription does not expire.
    ask::<()>(&mut client, &["HSET", "stream:used", "resolvespec-workers.away", "9999999999999"]);
    let other = Broker::builder().provider(looking.open().expect("it opens")).start().expect("it starts");
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(ask::<u64>(&mut client, &["XLEN", "stream"]), 50, "one subscription has not read them");
    let late = listen(&broker, SubscribeOptions::new("a.*").name("away"));
    let came: BTreeSet<EventId> = sent.iter().map(|_| late.recv_timeout(PATIENCE).expect("it is called")).collect();
    assert_eq!(came, sent);
    wait_until("it is trimmed", || ask::<u64>(&mut client, &["XLEN", "stream"]) <= 11);
    assert!(other.stop(PATIENCE).is_clean());
    assert!(broker.stop(PATIENCE).is_clean());
}

/// Consumers of dead members are removed, but only after another member has handled their deliveries.
#[test]
fn idle_consumers_are_removed_without_their_pending_deliveries() {
    let server = Server::start();
    let mut client = client(&server.url());
    let redis = Redis::new(server.url()).stream_name("stream").lease_time(Duration::from_millis(200));
    let broker = start(&redis);
    let id = broker.subscribe_with(all("a.*"), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    let sent: BTreeSet<EventId> = (0..2).map(|_| broker.publish(event("a.b")).expect("it is accepted").id).collect();
    let group = "resolvespec-workers.all";
    for who in ["holds nothing", "holds something"] {
        let read = ["XREADGROUP", "GROUP", group, who, "COUNT", "1", "STREAMS", "stream", ">"];
        let _: redis::Value = ask(&mut client, &read);
    }
    let first: Vec<redis::Value> = ask(&mut client, &["XPENDING", "stream", group, "-", "+", "1", "holds nothing"]);
    let first: Vec<redis::Value> = redis::from_redis_value(first[0].clone()).expect("an entry");
    let entry: String = redis::from_redis_value(first[0].clone()).expect("its name");
    ask::<()>(&mut client, &["XCLAIM", "stream", group, "holds something", "0", &entry, "JUSTID"]);
    let calls = listen(&broker, all("a.*"));
    let came: BTreeSet<EventId> = sent.iter().map(|_| calls.recv_timeout(PATIENCE).expect("it is called")).collect();
    assert_eq!(came, sent);
    let consumers = |client: &mut Connection| -> BTreeSet<String> {
        let told: Vec<Vec<redis::Value>> = ask(client, &["XINFO", "CONSUMERS", "stream", group]);
        told.into_iter().map(|it| redis::from_redis_value(it[1].clone()).expect("a name")).collect()
    };
    wait_until("both consumers are removed", || consumers(&mut client).iter().all(|name| !name.starts_with("holds")));
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The bridge handles entries of the original, writes the fields that the original reads, and does not read for the
/// original's group.
#[test]
fn a_stream_is_shared_with_the_original() {
    const THEIRS: &str = r#"{"id":"7b9c1b0e-5f6e-4c0e-9a53-0f6a4e9d7c11","source":"database","type":"public.users.create","status":"pending","retry_count":0,"payload":{"name":"Ada"},"user_id":7,"session_id":"s1","instance_id":"go-1","schema":"public","entity":"users","operation":"create","created_at":"2026-01-02T03:04:05.123456789Z","metadata":{"table_name":"users"}}"#;
    let server = Server::start();
    let mut client = client(&server.url());
    ask::<()>(&mut client, &["XGROUP", "CREATE", "stream", "resolvespec-workers", "0", "MKSTREAM"]);
    let broker = start(&Redis::new(server.url()).stream_name("stream"));
    let (sender, calls) = channel();
    broker
        .subscribe_with(all("public.*.*"), move |delivery| {
            // The test drops the receiver when it has enough.
            let _ = sender.send(delivery.event().clone());
        })
        .expect("a subscription");
    let id = "7b9c1b0e-5f6e-4c0e-9a53-0f6a4e9d7c11";
    let fields = ["event", THEIRS, "id", id, "type", "public.users.create", "source", "database", "status", "pending"];
    let entry = [&["XADD", "stream", "MAXLEN", "~", "10000", "*"][..], &fields, &["instance_id", "go-1"]].concat();
    ask::<String>(&mut client, &entry);
    let came = calls.recv_timeout(PATIENCE).expect("it is called");
    assert_eq!((came.id().to_string().as_str(), came.instance_id(), came.user_id()), (id, Some("go-1"), Some(7)));
    assert_eq!((came.payload().as_str(), came.session_id()), (r#"{"name":"Ada"}"#, Some("s1")));
    let ours = Event::builder(Source::Frontend, "public.users.update").payload(&1).build().expect("a valid event");
    broker.publish(ours.clone()).expect("it is accepted");
    calls.recv_timeout(PATIENCE).expect("it is called");
    type Entries = Vec<(String, Vec<String>)>;
    let newest: Entries = ask(&mut client, &["XREVRANGE", "stream", "+", "-", "COUNT", "1"]);
    let pairs: Vec<(&str, &str)> = newest[0].1.chunks(2).map(|pair| (&*pair[0], &*pair[1])).collect();
    let names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["event", "id", "type", "source", "status", "instance_id"]);
    let id = ours.id().to_string();
    assert_eq!(
        pairs[1..],
        [
            ("id", id.as_str()),
            ("type", "public.users.update"),
            ("source", "frontend"),
            ("status", "pending"),
            ("instance_id", "here"),
        ]
    );
    assert!(Event::from_json(pairs[0].1.as_bytes()).expect("an event").same_content(&ours));
    let groups: Vec<Vec<redis::Value>> = ask(&mut client, &["XINFO", "GROUPS", "stream"]);
    assert_eq!(groups.len(), 2);
    let pending: Vec<redis::Value> = ask(&mut client, &["XPENDING", "stream", "resolvespec-workers"]);
    assert_eq!(pending[0], redis::Value::Int(0), "the original's group has read nothing");
    assert!(broker.stop(PATIENCE).is_clean());
}
