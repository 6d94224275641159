//! A standby takes over from a server that has died, stands still or has become read-only. The address names both.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::query::Filter;
use eventbroker::{Broker, SubscribeOptions};
use eventbroker_conformance::load;
use eventbroker_conformance::postgres::Server;
use eventbroker_conformance::watch::{PATIENCE, RECOVERY, event, listen, wait_until};
use eventbroker_sql::Postgres;
use eventbroker_sql::postgres::OpenError;
use postgres::{Client, NoTls};

/// A primary with a database, its standby, and the address of both.
struct Pair {
    primary: Server,
    standby: Server,
    /// The URL of the database on the primary alone, and on the standby alone.
    urls: [String; 2],
    both: String,
}

impl Pair {
    fn new() -> Self {
        let primary = Server::start();
        let url = primary.database();
        let standby = primary.standby();
        let (base, database) = url.rsplit_once('/').expect("a database");
        let there = standby.url(database);
        let host = there.strip_prefix("postgres://postgres@").expect("a login");
        let both = format!("{base},{host}?target_session_attrs=read-write");
        Self { primary, urls: [url, there], standby, both }
    }

    fn broker(&self) -> Broker {
        let provider = Postgres::new(&self.both).open().expect("it opens");
        Broker::builder().provider(provider).start().expect("it starts")
    }

    /// Waits until the standby has all that the primary has.
    fn wait_for_standby(&self) {
        let mut client = client(&self.urls[0]);
        let behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()";
        wait_until("the standby has all", || client.query_one(behind, &[]).expect("a count").get::<_, i64>(0) == 1);
    }
}

fn client(url: &str) -> Client {
    Client::connect(url, NoTls).expect("it connects")
}

fn ids(client: &mut Client) -> HashSet<String> {
    client.query("SELECT id FROM events", &[]).expect("rows").iter().map(|row| row.get(0)).collect()
}

/// The standby was not connected, so the last commits are lost. The loss is counted, and the provider goes on.
#[test]
fn a_loss_by_an_asynchronous_failover_is_reported() {
    let pair = Pair::new();
    let broker = pair.broker();
    let calls = listen(&broker, SubscribeOptions::new("fail.*").name("all"));
    let publish = || broker.publish(event("fail.it")).expect("it is accepted").id.to_string();
    let kept: HashSet<String> = (0..20).map(|_| publish()).collect();
    pair.wait_for_standby();
    pair.standby.crash();
    let lost: HashSet<String> = (0..10).map(|_| publish()).collect();
    (0..30).for_each(|_| _ = calls.recv_timeout(PATIENCE).expect("it is handled"));
    assert_eq!(broker.back_end_stats().expect("figures").entries_lost, 0);
    pair.primary.crash();
    pair.standby.up();
    pair.standby.promote();
    let promoted = Instant::now();
    let next = publish();
    let took = promoted.elapsed();
    // Settled deliveries may come again.
    wait_until("the next one is handled", || calls.try_iter().any(|id| id.to_string() == next));
    println!("accepted {took:?} after the promotion");
    assert!(took < RECOVERY, "{took:?}");
    let mut client = client(&pair.urls[1]);
    let there = ids(&mut client);
    assert!(kept.is_subset(&there) && there.is_disjoint(&lost) && there.contains(&next), "{there:?}");
    let reported = || broker.back_end_stats().map(|stats| stats.entries_lost);
    // The first call on a connection that has just been cut may fail.
    wait_until("figures are there", || reported().is_ok());
    assert_eq!(reported(), Ok(1), "at least one, and reported once");
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    wait_until("it listens there", || client.query_one(listening, &[]).expect("a count").get::<_, i64>(0) == 1);
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The primary dies while publishers wait for the standby. All that was accepted is there, and no loss is reported.
#[test]
fn a_synchronous_failover_loses_nothing() {
    let pair = Pair::new();
    pair.primary.set("synchronous_standby_names = '*'\n");
    pair.primary.reload();
    let mut before = client(&pair.urls[0]);
    let in_sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    wait_until("it is in sync", || before.query_one(in_sync, &[]).expect("a count").get::<_, i64>(0) == 1);
    let broker = pair.broker();
    let calls = listen(&broker, SubscribeOptions::new("fail.*").name("all"));
    let (accepted, stop) = (Mutex::new(HashSet::new()), AtomicBool::new(false));
    let so_many = || accepted.lock().expect("no panic under the lock").len();
    let mut took = Duration::ZERO;
    thread::scope(|scope| {
        let _stop = load::Stop(&stop);
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    if let Ok(held) = broker.publish(event("fail.it")) {
                        accepted.lock().expect("no panic under the lock").insert(held.id.to_string());
                    }
                }
            });
        }
        wait_until("events are accepted", || so_many() > 100);
        pair.primary.crash();
        pair.standby.promote();
        let (promoted, then) = (Instant::now(), so_many());
        wait_until("events are accepted again", || so_many() > then + 100 || promoted.elapsed() > PATIENCE / 2);
        took = promoted.elapsed();
    });
    assert!(took < RECOVERY, "it went on {took:?} after the promotion");
    let accepted = accepted.into_inner().expect("no panic under the lock");
    let there = ids(&mut client(&pair.urls[1]));
    let lost = accepted.difference(&there).count();
    println!("{} accepted, {lost} lost, went on {took:?} after the promotion", accepted.len());
    assert_eq!(lost, 0);
    let mut left: HashSet<String> = accepted;
    while !left.is_empty() {
        left.remove(&calls.recv_timeout(PATIENCE).expect("all are handled").to_string());
    }
    let reported = || broker.back_end_stats().map(|stats| stats.entries_lost);
    wait_until("figures are there", || reported().is_ok());
    assert_eq!(reported(), Ok(0));
    assert!(broker.stop(PATIENCE).is_clean());
}

/// Every connection leaves it: those that read would be shown old data.
#[test]
fn a_server_that_has_become_read_only_is_left() {
    let pair = Pair::new();
    let broker = pair.broker();
    let calls = listen(&broker, SubscribeOptions::new("fail.*").name("all"));
    let first = broker.publish(event("fail.it")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(first.clone()));
    assert!(broker.get(&first).expect("an answer").is_some());
    pair.wait_for_standby();
    pair.primary.set("default_transaction_read_only = on\n");
    pair.primary.reload();
    pair.standby.promote();
    let mut read_only = client(&pair.urls[0]);
    let is_set = "SHOW transaction_read_only";
    wait_until("it is read-only", || read_only.query_one(is_set, &[]).expect("a setting").get::<_, String>(0) == "on");
    let began = Instant::now();
    let second = broker.publish(event("fail.it")).expect("it is accepted by the other server").id;
    assert!(began.elapsed() < RECOVERY, "{:?}", began.elapsed());
    wait_until("it is handled", || calls.try_iter().any(|id| id == second));
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'eventbroker'";
    wait_until("no connection is left", || {
        let page = broker.list(&Filter::default()).expect("an answer");
        assert!(page.events.iter().any(|event| *event.id() == second), "the old server is asked");
        read_only.query_one(sessions, &[]).expect("a count").get::<_, i64>(0) == 0
    });
    assert!(broker.stop(PATIENCE).is_clean());
}

/// Its system still accepts connections, but the server answers nothing.
#[test]
fn a_server_that_stands_still_is_left() {
    let pair = Pair::new();
    let broker = pair.broker();
    let first = event("fail.it");
    broker.publish(first.clone()).expect("it is accepted");
    pair.wait_for_standby();
    pair.primary.freeze(true);
    pair.standby.promote();
    let began = Instant::now();
    let accepted = broker.publish(event("fail.it"));
    let took = began.elapsed();
    let found = broker.get(first.id());
    pair.primary.freeze(false);
    println!("accepted {took:?} after the promotion");
    assert!(accepted.is_ok() && took < PATIENCE, "{accepted:?} after {took:?}");
    assert!(matches!(&found, Ok(Some(_))), "{found:?}");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn an_address_of_several_servers_is_checked() {
    let refusals = [
        (
            "postgres://u@%2Fa:1,%2Fb:2/x?target_session_attrs=read-only",
            "url: target_session_attrs is not any or read-write",
        ),
        ("postgres://u@%2Fa,%2Fb/x?load_balance_hosts=random", "url: load_balance_hosts is not disable"),
        ("postgres://u@localhost/x?hostaddr=127.0.0.1,127.0.0.1", "url: names 1 hosts and 2 of hostaddr"),
        ("postgres://u@localhost,localhost/x?port=1", "url: names 2 hosts and 3 ports"),
    ];
    for (url, problem) in refusals {
        let error = Postgres::new(url).open().expect_err("it is refused");
        assert!(matches!(error, OpenError::Setting(_)) && error.to_string().starts_with(problem), "{error}");
    }
    let error = Postgres::new("postgres://u:s3cret@127.0.0.1:1,localhost:2/x").open().expect_err("nobody is there");
    let text = error.to_string();
    assert!(text.starts_with("PostgreSQL at 127.0.0.1:1,localhost:2/x: 127.0.0.1:1: "), "{text}");
    assert!(text.contains("; localhost:2: ") && !text.contains("s3cret"), "{text}");
}
