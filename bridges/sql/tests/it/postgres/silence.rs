//! A connection passes nothing any more, while the server lives: the session is replaced. A session whose statement runs is not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, SubscribeOptions};
use eventbroker_conformance::load;
use eventbroker_conformance::postgres::{PASSWORD, Server};
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::watch::{PATIENCE, event, last_error, listen, wait_until};
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

/// How long a session may be silent.
const SILENCE: Duration = Duration::from_secs(10);

fn start(postgres: &Postgres) -> Broker {
    Broker::builder().provider(postgres.open().expect("it opens")).start().expect("it starts")
}

/// A broker whose connections go through a proxy, the proxy, and a client of the same database beside it. With one connection, no call
/// that was given up is repeated on another one.
fn through_proxy(max_connections: u32) -> (Broker, Proxy, Client, String) {
    let server = super::server();
    let url = server.database();
    let proxy = Proxy::to(server.port());
    let tcp = server.tcp(&url, PASSWORD).replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    (
        start(&Postgres::new(tcp).max_connections(max_connections)),
        proxy,
        Client::connect(&url, NoTls).expect("it connects"),
        url,
    )
}

#[test]
fn a_publisher_whose_connection_is_lost_silently_goes_on() {
    let (broker, proxy, mut client, _) = through_proxy(1);
    broker.publish(event("silence.it")).expect("it is accepted");
    proxy.black_hole_all();
    let began = Instant::now();
    let accepted = broker.publish(event("silence.it")).expect("it is accepted on another connection");
    println!("accepted after {:?}", began.elapsed());
    assert!(began.elapsed() < 2 * SILENCE, "{:?}", began.elapsed());
    let stored = client.query("SELECT FROM events WHERE id = $1", &[&accepted.id.to_string()]).expect("an answer");
    assert_eq!(stored.len(), 1);
    assert!(broker.stop(PATIENCE).is_clean());
}

/// An idle connection is checked before its next use.
#[test]
fn an_idle_connection_that_is_lost_silently_is_replaced() {
    let (broker, proxy, mut client, _) = through_proxy(3);
    let first = broker.publish(event("silence.it")).expect("it is accepted").id;
    // The statement of `get` alone asks for an event by its id.
    let session = "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() \
         AND starts_with(query, 'SELECT e.id, ')";
    let mut port = None;
    wait_until("its session is there", || {
        assert!(broker.get(&first).expect("an answer").is_some());
        port = client.query_opt(session, &[]).expect("an answer").map(|row| row.get::<_, i32>(0));
        port.is_some()
    });
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE client_port = $1 \
         AND state_change < clock_timestamp() - interval '3 s'";
    wait_until("it is idle for long", || client.query_one(idle, &[&port]).expect("a count").get::<_, i64>(0) == 1);
    proxy.black_hole(u16::try_from(port.expect("a port")).expect("a port"));
    let began = Instant::now();
    assert!(broker.get(&first).expect("an answer on another connection").is_some());
    println!("answered after {:?}", began.elapsed());
    assert!(began.elapsed() < SILENCE, "{:?}", began.elapsed());
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_member_whose_connection_is_lost_silently_goes_on() {
    let (broker, proxy, _, url) = through_proxy(1);
    let calls = listen(&broker, SubscribeOptions::new("silence.*").name("all"));
    let other = start(&Postgres::new(url));
    let first = other.publish(event("silence.it")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(first));
    proxy.black_hole_all();
    let began = Instant::now();
    let second = other.publish(event("silence.it")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(second), "it is delivered on another connection");
    println!("delivered after {:?}", began.elapsed());
    assert!(began.elapsed() < 2 * SILENCE, "{:?}", began.elapsed());
    assert!(broker.stop(PATIENCE).is_clean() && other.stop(PATIENCE).is_clean());
}

/// A commit waits for a standby that does not exist, which has no limit.
#[test]
fn a_session_whose_statement_runs_is_not_replaced() {
    let server = Server::start();
    let url = server.database();
    let mut client = Client::connect(&url, NoTls).expect("it connects");
    let broker = start(&Postgres::new(&url));
    broker.publish(event("silence.it")).expect("it is accepted");
    let mut sessions = |condition: &str| -> Vec<(i32, String)> {
        let query = format!(
            "SELECT pid, backend_start::text FROM pg_stat_activity WHERE application_name = 'eventbroker' AND {condition}"
        );
        client.query(&query, &[]).expect("rows").iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    server.set("synchronous_standby_names = 'nobody'\n");
    server.reload();
    let (accepted, stop, mut first) = (AtomicU64::new(0), AtomicBool::new(false), Vec::new());
    thread::scope(|scope| {
        let _stop = load::Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                broker.publish(event("silence.it")).expect("it is accepted in the end");
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut waiting = || sessions("state = 'active' AND wait_event = 'SyncRep'");
        wait_until("a commit waits", || {
            first = waiting();
            first.len() == 1
        });
        let (began, accepted_before) = (Instant::now(), accepted.load(Ordering::SeqCst));
        // The session is checked after `SILENCE`, and again after 5 s.
        wait_until("it has waited for long", || {
            let waits = waiting();
            assert_eq!(waits, first, "another session has taken over");
            let error = last_error(&broker);
            assert!(!error.contains("replaced"), "{error}");
            began.elapsed() > SILENCE + Duration::from_secs(8)
        });
        stop.store(true, Ordering::SeqCst);
        server.set("synchronous_standby_names = ''\n");
        server.reload();
        wait_until("it is accepted", || accepted.load(Ordering::SeqCst) > accepted_before);
    });
    assert!(sessions("true").contains(&first[0]), "the same session");
    assert!(broker.stop(PATIENCE).is_clean());
}
