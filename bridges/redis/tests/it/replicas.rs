//! A server and its replica. With `min_replicas`, every accepted event survives a failover to the replica.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Config, Event, PublishError, Source, SubscribeOptions};
use eventbroker_conformance::processes::ledger::Accepted;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;
use redis::Connection;

use crate::support::{PATIENCE, ask, client, event, listen, start, wait_for_check, wait_until};

/// A server, its synchronised replica, and a client of the replica.
fn pair() -> (Server, Server, Connection) {
    let primary = Server::with(&["--repl-diskless-sync-delay", "0"]);
    let of = primary.port().to_string();
    let replica = Server::with(&["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", &of]);
    let mut to_replica = client(&replica.url());
    wait_until("the replica is in sync", || {
        ask::<String>(&mut to_replica, &["INFO", "replication"]).contains("master_link_status:up")
    });
    // The link is reported as up before the replica receives writes.
    let mut to_primary = client(&primary.url());
    ask::<()>(&mut to_primary, &["SET", "x", ""]);
    assert_eq!(ask::<u64>(&mut to_primary, &["WAIT", "1", "10000"]), 1);
    (primary, replica, to_replica)
}

fn impatient() -> Config {
    let mut config = Config::default();
    config.sync_timeout = Duration::from_millis(500);
    config
}

/// An event of 20 kB: socket buffers cannot hold many.
fn large(number: u64) -> Event {
    let event = Event::builder(Source::System, "a.b").payload(&(number, "x".repeat(20_000)));
    event.build().expect("a valid event")
}

#[test]
fn accepted_events_survive_a_failover_with_min_replicas() {
    let (primary, replica, mut to_replica) = pair();
    let proxy = Proxy::to(primary.port());
    let redis = Redis::new(format!("redis://127.0.0.1:{}", proxy.port())).max_len(0).min_replicas(1);
    let redis = redis.replica_timeout(Duration::from_millis(200));
    let provider = redis.open().expect("it opens");
    let broker = Broker::builder().config(impatient()).provider(provider).start().expect("it starts");
    // No handler ends before the failover, and this process holds at most 8 events. The replica must deliver the rest.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (sender, handled) = channel();
    let shared = Arc::clone(&gate);
    let options = SubscribeOptions::new("a.*").name("all").queue_capacity(4).concurrency(4);
    broker
        .subscribe_with(options, move |delivery| {
            let (open, opened) = &*shared;
            let open = open.lock().expect("no panic under the lock");
            drop(opened.wait_while(open, |open| !*open).expect("no panic under the lock"));
            // The test drops the receiver when it has enough.
            let _ = sender.send(delivery.event().id().to_string());
        })
        .expect("a subscription");
    let accepted = Mutex::new(Accepted::default());
    let unknown = Mutex::new(BTreeSet::new());
    let publish = |number| {
        let event = large(number);
        match broker.publish(event.clone()) {
            Ok(_) => accepted.lock().expect("no panic under the lock").enter(&event, number),
            Err(PublishError::Unknown { event, .. }) => {
                unknown.lock().expect("no panic under the lock").insert(event.id().to_string());
            }
            Err(error) => panic!("{error}"),
        }
    };
    (0..100).for_each(publish);
    assert_eq!(accepted.lock().expect("no panic under the lock").count(), 100, "the replica has them");
    replica.freeze(true);
    thread::scope(|scope| {
        for publisher in 0..4 {
            scope.spawn(move || (0..4).for_each(|number| publish(1_000 * (publisher + 1) + number)));
        }
    });
    assert_eq!(accepted.lock().expect("no panic under the lock").count(), 100, "no replica has more");
    let error = broker.stats().bridge.and_then(|bridge| bridge.last_error).expect("an error");
    assert!(error.contains("0 replicas of 1 have it after 200ms"), "{error}");
    primary.crash();
    replica.freeze(false);
    proxy.lead_to(replica.port());
    // A replica rejects writes with READONLY.
    wait_until("the replica refuses", || {
        broker.stats().bridge.and_then(|bridge| bridge.last_error).is_some_and(|error| error.contains("READONLY"))
    });
    ask::<()>(&mut to_replica, &["REPLICAOF", "NO", "ONE"]);
    // The promoted server needs a replica too: `min_replicas` is 1.
    let next = Server::with(&["--replicaof", "127.0.0.1", &replica.port().to_string()]);
    let promoted = Instant::now();
    let mut number = 10_000;
    wait_until("a publish is accepted again", || {
        number += 1;
        publish(number);
        accepted.lock().expect("no panic under the lock").count() > 100
    });
    let took = promoted.elapsed();
    *gate.0.lock().expect("no panic under the lock") = true;
    gate.1.notify_all();
    let accepted = accepted.into_inner().expect("no panic under the lock");
    let unknown = unknown.into_inner().expect("no panic under the lock");
    let mut calls: Vec<String> = Vec::new();
    while !accepted.is_handled(&calls) {
        let call = handled.recv_timeout(PATIENCE);
        calls.push(call.unwrap_or_else(|_| panic!("{}", accepted.account(&calls))));
    }
    assert!(broker.stop(PATIENCE).is_clean());
    calls.extend(handled.try_iter());
    calls.retain(|id| !unknown.contains(id));
    let account = accepted.account(&calls);
    println!("failover with min_replicas: {account}, {} unknown, went on {took:?} after", unknown.len());
    account.check();
    assert!(took < Duration::from_secs(5), "it went on {took:?} after");
    drop(next);
}

#[test]
fn a_loss_by_a_failover_is_reported() {
    let (primary, replica, mut to_replica) = pair();
    let proxy = Proxy::to(primary.port());
    let redis = Redis::new(format!("redis://127.0.0.1:{}", proxy.port())).max_len(0);
    let broker = start(&redis.lease_time(Duration::from_millis(600)));
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let options = SubscribeOptions::new("a.*").name("all").queue_capacity(4).concurrency(1);
    broker
        .subscribe_with(options, move |_| {
            // Blocks until the test drops the sender.
            let _ = gate.lock().expect("no panic under the lock").recv();
        })
        .expect("a subscription");
    (0..50).for_each(|number| _ = broker.publish(large(number)).expect("it is accepted"));
    wait_until("the replica has them", || ask::<u64>(&mut to_replica, &["XLEN", "resolvespec:events"]) == 50);
    replica.freeze(true);
    (50..250).for_each(|number| _ = broker.publish(large(number)).expect("it is accepted"));
    wait_for_check(&mut client(&primary.url()), "resolvespec:events", 250);
    primary.crash();
    replica.freeze(false);
    ask::<()>(&mut to_replica, &["REPLICAOF", "NO", "ONE"]);
    let there: u64 = ask(&mut to_replica, &["XLEN", "resolvespec:events"]);
    proxy.lead_to(replica.port());
    let told = || broker.back_end_stats().map_or((0, 0), |stats| (stats.entries_lost, stats.losses_unknown));
    let took = wait_until("the loss is reported", || told().1 > 0);
    println!("failover without min_replicas: {} of 250 lost, {:?} told {took:?} after", 250 - there, told());
    assert!(there < 250, "the replica was behind");
    let (lost, unknown) = told();
    assert!((1..=250 - there).contains(&lost) && unknown == 1, "at least {lost}, {unknown}");
    drop(open);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn too_few_replicas_make_the_outcome_unknown_until_there_are_enough() {
    let primary = Server::with(&["--repl-diskless-sync-delay", "0"]);
    let redis = Redis::new(primary.url()).min_replicas(1).replica_timeout(Duration::from_millis(50));
    let provider = redis.open().expect("it opens");
    let broker = Broker::builder().config(impatient()).provider(provider).start().expect("it starts");
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("all"));
    let refused = broker.publish(event("a.b")).expect_err("there is no replica");
    assert!(matches!(refused, PublishError::Unknown { .. }), "{refused}");
    let again = refused.into_event();
    let replica = Server::with(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
    wait_until("it is accepted", || broker.publish(again.clone()).is_ok());
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(again.id().clone()));
    assert!(broker.stop(PATIENCE).is_clean());
    assert_eq!(calls.try_iter().count(), 0, "it was stored once");
    drop(replica);
}

#[test]
fn without_min_replicas_a_publish_waits_for_none() {
    let server = Server::start();
    let broker = start(&Redis::new(server.url()));
    broker.publish(event("a.b")).expect("it is accepted");
    assert!(broker.stop(PATIENCE).is_clean());
    let problem = |redis: Redis| redis.open().expect_err("out of bounds").to_string();
    let redis = || Redis::new(server.url());
    assert_eq!(problem(redis().min_replicas(101)), "min_replicas: is 101, at most 100 is allowed");
    let error = problem(redis().replica_timeout(Duration::ZERO));
    assert_eq!(error, "replica_timeout: is 0ns, at least 1ms is required");
}
