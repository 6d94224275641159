//! Entries that other clients remove before a subscription has handled them are counted as lost, and no others. The count
//! is a lower bound.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, EventId, SubscribeOptions};
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;
use redis::Connection;

use crate::support::{PATIENCE, ask, client, event, listen, start, wait_for_check, wait_until};

const LEASE: Duration = Duration::from_millis(600);
/// A claim cycle, plus the delay of a busy machine.
const SOON: Duration = Duration::from_millis(1_500);
const STREAM: &str = "stream";

fn redis(url: &str) -> Redis {
    Redis::new(url).stream_name(STREAM).lease_time(LEASE).max_len(0)
}

/// Blocks handlers until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let open = self.0.0.lock().expect("no panic under the lock");
        drop(self.0.1.wait_while(open, |open| !*open).expect("no panic under the lock"));
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic under the lock") = true;
        self.0.1.notify_all();
    }

    fn close(&self) {
        *self.0.0.lock().expect("no panic under the lock") = false;
    }
}

/// Subscribes with room for 6 deliveries. Its handlers wait until the gate is open.
fn slow(broker: &Broker, name: &str, gate: &Gate) -> Receiver<EventId> {
    let (sender, calls) = channel();
    let gate = gate.clone();
    broker
        .subscribe_with(SubscribeOptions::new("a.*").name(name).queue_capacity(4).concurrency(2), move |delivery| {
            gate.pass();
            // The test drops the receiver when it has enough.
            let _ = sender.send(delivery.event().id().clone());
        })
        .expect("a subscription");
    calls
}

/// Waits until the subscription holds 6 leases: two running handlers and a queue of four.
fn wait_for_full_hands(broker: &Broker) {
    wait_until("the member holds six deliveries", || broker.stats().bridge.is_some_and(|bridge| bridge.leases == 6));
}

fn publish(broker: &Broker, count: usize) -> BTreeSet<EventId> {
    let held = broker.publish_batch((0..count).map(|_| event("a.b")));
    held.into_iter().map(|it| it.expect("it is accepted").id).collect()
}

fn lost(broker: &Broker) -> (u64, u64) {
    let stats = broker.back_end_stats().expect("it answers");
    (stats.entries_lost, stats.losses_unknown)
}

/// Waits for a loss within [`SOON`], and checks after the next cycle that at most `missing` entries are counted.
fn assert_lost(broker: &Broker, missing: u64) {
    let began = Instant::now();
    while lost(broker).0 == 0 && began.elapsed() < SOON {
        thread::sleep(Duration::from_millis(5));
    }
    a_cycle();
    let (counted, _) = lost(broker);
    assert!((1..=missing).contains(&counted), "{counted} counted of {missing}");
}

fn assert_nothing_lost(broker: &Broker) {
    a_cycle();
    assert_eq!(lost(broker), (0, 0));
}

/// All deliveries that are still outstanding, up to an event that this function publishes.
fn rest(broker: &Broker, calls: &Receiver<EventId>) -> BTreeSet<EventId> {
    let last = broker.publish(event("a.b")).expect("it is accepted").id;
    let mut came = BTreeSet::new();
    loop {
        let id = calls.recv_timeout(PATIENCE).expect("it is called");
        if id == last {
            wait_until("no other delivery runs", || broker.stats().bridge.is_some_and(|bridge| bridge.leases == 0));
            came.extend(calls.try_iter());
            return came;
        }
        came.insert(id);
    }
}

/// Two checks for losses: one every quarter of a lease.
fn a_cycle() {
    thread::sleep(LEASE / 2);
}

#[test]
fn a_foreign_max_len_is_counted() {
    let server = Server::start();
    let mut client = client(&server.url());
    let broker = start(&redis(&server.url()));
    let gate = Gate::default();
    let calls = slow(&broker, "slow", &gate);
    let fast = listen(&broker, SubscribeOptions::new("a.*").name("fast"));
    let sent = publish(&broker, 400);
    let seen: BTreeSet<EventId> = sent.iter().map(|_| fast.recv_timeout(PATIENCE).expect("it is called")).collect();
    assert_eq!((seen, lost(&broker)), (sent.clone(), (0, 0)));
    let removed: u64 = ask(&mut client, &["XTRIM", STREAM, "MAXLEN", "100"]);
    let began = Instant::now();
    wait_until("the loss is counted", || lost(&broker).0 > 0);
    let took = began.elapsed();
    gate.open();
    let came = rest(&broker, &calls);
    let missing = sent.difference(&came).count() as u64;
    assert!(missing > 0 && missing < removed, "{missing} of {removed}: the deliveries in hand were handled");
    assert_lost(&broker, missing);
    println!("a foreign MAXLEN: {removed} removed, {missing} lost, {:?} counted, {took:?} after", lost(&broker));
    assert!(took < SOON, "{took:?}");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn trimming_while_entries_are_read_is_counted() {
    let server = Server::start();
    let mut client = client(&server.url());
    let broker = start(&redis(&server.url()));
    let (sender, calls) = channel();
    broker
        .subscribe_with(SubscribeOptions::new("a.*").name("all").queue_capacity(8).concurrency(2), move |delivery| {
            thread::sleep(Duration::from_micros(300));
            // The test drops the receiver when it has enough.
            let _ = sender.send(delivery.event().id().clone());
        })
        .expect("a subscription");
    let mut sent = BTreeSet::new();
    for round in 0..60 {
        sent.extend(publish(&broker, 150));
        if round % 3 == 0 {
            let left = ["5", "50", "120", "0"][round / 3 % 4];
            ask::<u64>(&mut client, &["XTRIM", STREAM, "MAXLEN", left]);
        }
    }
    let came = rest(&broker, &calls);
    let missing = sent.difference(&came).count() as u64;
    assert!(missing > 0);
    assert_lost(&broker, missing);
    println!("{} sent, {missing} lost to a foreign MAXLEN, {:?} counted", sent.len(), lost(&broker));
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn single_entries_that_are_deleted_are_counted() {
    let server = Server::start();
    let mut client = client(&server.url());
    let broker = start(&redis(&server.url()));
    let gate = Gate::default();
    let calls = slow(&broker, "slow", &gate);
    let sent = publish(&broker, 100);
    wait_for_full_hands(&broker);
    wait_for_check(&mut client, STREAM, 100);
    let names: Vec<(String, Vec<String>)> = ask(&mut client, &["XRANGE", STREAM, "-", "+"]);
    for at in [0, 1, 50, 51, 99] {
        assert_eq!(ask::<u64>(&mut client, &["XDEL", STREAM, &names[at].0]), 1);
    }
    gate.open();
    let came = rest(&broker, &calls);
    // The handlers had two of the five in hand.
    assert_eq!(sent.difference(&came).count(), 3);
    assert_lost(&broker, 3);
    assert!(broker.stop(PATIENCE).is_clean());
}

/// An entry in the middle of the unread ones is deleted: the server does not know how many entries are gone.
#[test]
fn an_unread_entry_that_is_deleted_is_reported() {
    let server = Server::start();
    let mut client = client(&server.url());
    let broker = start(&redis(&server.url()));
    let gate = Gate::default();
    let calls = slow(&broker, "slow", &gate);
    let sent = publish(&broker, 300);
    wait_for_full_hands(&broker);
    wait_for_check(&mut client, STREAM, 300);
    let names: Vec<(String, Vec<String>)> = ask(&mut client, &["XRANGE", STREAM, "-", "+"]);
    // In one call: a check between two would report each of them.
    assert_eq!(ask::<u64>(&mut client, &["XDEL", STREAM, &names[250].0, &names[260].0]), 2);
    wait_until("it is reported", || lost(&broker) == (1, 1));
    a_cycle();
    assert_eq!(lost(&broker), (1, 1), "it is reported once");
    gate.open();
    assert_eq!(sent.difference(&rest(&broker, &calls)).count(), 2);
    assert_lost(&broker, 2);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn deleting_through_the_bridge_is_no_loss() {
    let server = Server::start();
    let mut client = client(&server.url());
    let broker = start(&redis(&server.url()));
    let gate = Gate::default();
    let calls = slow(&broker, "slow", &gate);
    let sent = publish(&broker, 300);
    wait_for_full_hands(&broker);
    wait_for_check(&mut client, STREAM, 300);
    let store = redis(&server.url()).open().expect("it opens").store.expect("a store");
    // The group has read the first of the two and returned it. It has not read the second.
    let deleted: Vec<EventId> = [40, 299].iter().filter_map(|at| sent.iter().nth(*at).cloned()).collect();
    for id in &deleted {
        assert!(store.delete(id).expect("it answers"));
        assert!(!store.delete(id).expect("it answers"), "it is gone");
    }
    assert_nothing_lost(&broker);
    gate.open();
    let came = rest(&broker, &calls);
    assert!(sent.iter().all(|id| came.contains(id) != deleted.contains(id)));
    assert_nothing_lost(&broker);
    assert!(broker.stop(PATIENCE).is_clean());
}

/// Deleting the first unread entries looks like a foreign trim to the server's figures.
#[test]
fn deleting_all_unread_entries_through_the_bridge_is_no_loss() {
    let server = Server::start();
    let mut client = client(&server.url());
    let broker = start(&redis(&server.url()));
    let gate = Gate::default();
    let calls = slow(&broker, "slow", &gate);
    let sent = publish(&broker, 300);
    wait_for_full_hands(&broker);
    wait_for_check(&mut client, STREAM, 300);
    let store = redis(&server.url()).open().expect("it opens").store.expect("a store");
    sent.iter().for_each(|id| assert!(store.delete(id).expect("it answers")));
    assert_nothing_lost(&broker);
    gate.open();
    rest(&broker, &calls);
    assert_nothing_lost(&broker);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn deleted_entries_of_a_dead_member_are_no_longer_pending_and_counted() {
    let server = Server::start();
    let mut client = client(&server.url());
    let proxy = Proxy::to(server.port());
    let cut_off = start(&redis(&format!("redis://127.0.0.1:{}", proxy.port())));
    let gate = Gate::default();
    let _calls = slow(&cut_off, "all", &gate);
    publish(&cut_off, 3);
    let pending = |client: &mut Connection| {
        let pending: Vec<redis::Value> = ask(client, &["XPENDING", STREAM, "resolvespec-workers.all"]);
        pending[0].clone()
    };
    wait_until("it holds them", || pending(&mut client) == redis::Value::Int(3));
    proxy.set_down(true);
    ask::<u64>(&mut client, &["XTRIM", STREAM, "MAXLEN", "0"]);
    let broker = start(&redis(&server.url()));
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("all"));
    wait_until("none is pending", || pending(&mut client) == redis::Value::Int(0));
    assert_lost(&broker, 3);
    let id = broker.publish(event("a.b")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    gate.open();
    proxy.set_down(false);
    cut_off.stop(PATIENCE);
    assert!(broker.stop(PATIENCE).is_clean());
}

/// Joining and leaving members, the bridge's own trimming and unmatched events count as no loss.
#[test]
fn handled_entries_are_no_loss() {
    let server = Server::start();
    let short = Duration::from_millis(1_000);
    let open = || redis(&server.url()).max_len(10).idle_expiry(short);
    let other = start(&open());
    let calls = listen(&other, SubscribeOptions::new("a.b").name("some"));
    for _ in 0..3 {
        let broker = start(&open());
        let own = listen(&broker, SubscribeOptions::new("a.b").name("some"));
        for _ in 0..5 {
            publish(&broker, 100);
            broker.publish(event("a.other")).expect("it is accepted");
            a_cycle();
        }
        broker.stop(PATIENCE);
        own.try_iter().for_each(drop);
    }
    rest(&other, &calls);
    assert_nothing_lost(&other);
    assert!(other.stop(PATIENCE).is_clean());
}

#[test]
fn a_server_that_forgets_everything_is_reported() {
    let server = Server::with(&["--appendonly", "no"]);
    type Fault = fn(&Server, &mut Connection);
    let faults: [(&str, Fault); 3] = [
        ("DEL", |_, client| ask::<()>(client, &["DEL", STREAM])),
        ("FLUSHALL", |_, client| ask::<()>(client, &["FLUSHALL"])),
        ("a restart without persistence", |server, _| {
            server.crash();
            server.up();
        }),
    ];
    for (name, fault) in faults {
        let mut client = client(&server.url());
        ask::<()>(&mut client, &["FLUSHALL"]);
        let broker = start(&redis(&server.url()));
        let gate = Gate::default();
        let calls = slow(&broker, "slow", &gate);
        let sent = publish(&broker, 200);
        wait_for_full_hands(&broker);
        wait_for_check(&mut client, STREAM, 200);
        assert_eq!(lost(&broker), (0, 0));
        let in_hand = broker.stats().bridge.expect("a bridge").leases;
        fault(&server, &mut client);
        let began = Instant::now();
        wait_until("the loss is counted", || broker.back_end_stats().is_ok_and(|stats| stats.losses_unknown > 0));
        let took = began.elapsed();
        gate.open();
        let came = rest(&broker, &calls);
        let missing = sent.difference(&came).count() as u64;
        println!("{name}: {missing} lost, {:?} counted, {took:?} after", lost(&broker));
        assert!(missing > 100);
        // Running handlers end. The deliveries queued behind them are dropped if an extension reports their leases lost
        // before the gate opens.
        let handled = came.len() as u64;
        assert!((2..=in_hand).contains(&handled), "{name}: {handled} of {in_hand} in hand were handled");
        a_cycle();
        let (counted, unknown) = lost(&broker);
        assert_eq!(unknown, 1, "{name}: it is counted once");
        assert!((1..=missing).contains(&counted), "{name}: {counted} counted of {missing}");
        assert!(took < 2 * SOON, "{name}: {took:?}");
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

/// Redis 7.0 forgets with a restart how many entries a group has read. Handled entries must not count as lost then.
#[test]
fn a_restart_with_persistence_is_no_loss() {
    let server = Server::with(&["--appendfsync", "always"]);
    let broker = start(&redis(&server.url()));
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("all"));
    for _ in 0..3 {
        let sent = publish(&broker, 100);
        let came: BTreeSet<EventId> =
            sent.iter().map(|_| calls.recv_timeout(PATIENCE).expect("it is called")).collect();
        assert_eq!(came, sent);
        server.crash();
        server.up();
        wait_until("the server answers", || broker.back_end_stats().is_ok());
        assert_nothing_lost(&broker);
    }
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The first check after the restart finds a group between two entries, where its count of read entries cannot be
/// corrected. Later checks must not believe it either.
#[test]
fn a_restart_in_the_middle_of_a_backlog_is_no_loss() {
    let server = Server::with(&["--appendfsync", "always"]);
    let mut client = client(&server.url());
    let broker = start(&redis(&server.url()));
    let gate = Gate::default();
    let calls = slow(&broker, "slow", &gate);
    gate.open();
    let sent = publish(&broker, 100);
    let came: BTreeSet<EventId> = sent.iter().map(|_| calls.recv_timeout(PATIENCE).expect("it is called")).collect();
    assert_eq!(came, sent);
    gate.close();
    publish(&broker, 200);
    wait_for_full_hands(&broker);
    wait_for_check(&mut client, STREAM, 300);
    server.crash();
    server.up();
    wait_until("the server answers", || broker.back_end_stats().is_ok());
    a_cycle();
    a_cycle();
    gate.open();
    rest(&broker, &calls);
    a_cycle();
    assert_nothing_lost(&broker);
    assert!(broker.stop(PATIENCE).is_clean());
}
