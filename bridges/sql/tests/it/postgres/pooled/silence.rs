//! Connections to the pooler pass nothing any more: they are replaced, whatever their sessions do for others meanwhile. One whose commit
//! runs is not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::Broker;
use eventbroker_conformance::load;
use eventbroker_conformance::pgbouncer::PgBouncer;
use eventbroker_conformance::postgres::Server;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::watch::{PATIENCE, event, last_error, wait_until};
use eventbroker_sql::{Pooler, Postgres};
use postgres::{Client, NoTls};

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// A broker that goes through a proxy and a pooler to a server, and a client of the server. The broker has one connection, so no call
/// that was given up is repeated on another one.
struct Path {
    broker: Broker,
    proxy: Proxy,
    client: Client,
    /// The URL of the database through the pooler alone.
    pooled: String,
    pooler: PgBouncer,
    server: Server,
}

impl Path {
    fn new() -> Self {
        let server = Server::start();
        let direct = server.database();
        let pooler = PgBouncer::with(&server, "default_pool_size = 40\nserver_idle_timeout = 600");
        let proxy = Proxy::to(pooler.port());
        let database = direct.rsplit('/').next().expect("a database");
        let url = format!("postgres://postgres@127.0.0.1:{}/{database}", proxy.port());
        let provider = Postgres::new(url).pooler(Pooler::True).max_connections(1).open().expect("it opens");
        let broker = Broker::builder().provider(provider).start().expect("it starts");
        let client = Client::connect(&direct, NoTls).expect("it connects");
        Self { broker, proxy, client, pooled: pooler.through(&direct), pooler, server }
    }

    fn publish(&self) {
        self.broker.publish(event("silence.it")).unwrap_or_else(|error| panic!("{error}: {}", self.pooler.log()));
    }

    /// The sessions of the pooler that meet a condition, by their processes.
    fn sessions(&mut self, condition: &str) -> Vec<i32> {
        let query = format!(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database() \
             AND pid <> pg_backend_pid() AND {condition} ORDER BY pid"
        );
        self.client.query(&query, &[]).expect("rows").iter().map(|row| row.get(0)).collect()
    }
}

/// The sessions in which the broker has worked run long statements of another program.
#[test]
fn a_silent_connection_is_replaced_while_its_former_session_works_for_another_client() {
    let mut path = Path::new();
    path.publish();
    let former = path.sessions("true");
    wait_until("the former sessions work for others", || {
        let at_work = path.sessions("query = 'SELECT pg_sleep(120)'");
        let are_taken = former.iter().all(|session| at_work.contains(session));
        if !are_taken {
            let pooled = path.pooled.clone();
            thread::spawn(move || {
                let mut other = Client::connect(&pooled, NoTls).expect("it connects");
                // The server ends before the statement does.
                let _ = other.batch_execute("SELECT pg_sleep(120)");
            });
            thread::sleep(Duration::from_millis(50));
        }
        are_taken
    });
    path.publish();
    // The server itself would end a session whose transaction is open.
    let open = "state <> 'idle' AND query <> 'SELECT pg_sleep(120)'";
    wait_until("no transaction is open", || path.sessions(open).is_empty());
    path.proxy.black_hole_all();
    let began = Instant::now();
    path.publish();
    println!("accepted after {:?}", began.elapsed());
    assert!(began.elapsed() < 2 * SILENCE, "{:?}", began.elapsed());
    assert!(path.broker.stop(PATIENCE).is_clean());
}

/// The connection is lost while a statement of its transaction runs. The transaction is rolled back, and the event is stored once.
#[test]
fn the_transaction_of_a_silent_connection_is_ended() {
    let mut path = Path::new();
    path.publish();
    path.client.batch_execute("BEGIN; LOCK TABLE events IN SHARE MODE").expect("its owner may");
    let (broker, took) = (&path.broker, AtomicU64::new(0));
    thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let began = Instant::now();
            let accepted = broker.publish(event("silence.it"));
            took.store(began.elapsed().as_millis() as u64, Ordering::SeqCst);
            accepted
        });
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND starts_with(query, 'INSERT INTO events ')";
        let mut observer = Client::connect(&path.pooled, NoTls).expect("it connects");
        wait_until("the statement waits", || {
            let answer = observer.simple_query(waits).expect("a count");
            answer.iter().any(|it| matches!(it, postgres::SimpleQueryMessage::Row(row) if row.get(0) == Some("1")))
        });
        path.proxy.black_hole_all();
        path.client.batch_execute("ROLLBACK").expect("it lets go");
        publishing.join().expect("no panic").expect("it is accepted on another connection");
    });
    let took = Duration::from_millis(took.into_inner());
    println!("accepted after {took:?}");
    assert!(took < 2 * SILENCE, "{took:?}");
    assert_eq!(path.client.query_one("SELECT count(*) FROM events", &[]).expect("a count").get::<_, i64>(0), 2);
    assert!(path.broker.stop(PATIENCE).is_clean());
}

/// A commit waits for a standby that does not exist, which has no limit.
#[test]
fn a_connection_whose_commit_runs_is_not_replaced() {
    let mut path = Path::new();
    path.publish();
    path.server.set("synchronous_standby_names = 'nobody'\n");
    path.server.reload();
    let (accepted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'SyncRep'";
    let (broker, client, server) = (&path.broker, &mut path.client, &path.server);
    thread::scope(|scope| {
        let _stop = load::Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                broker.publish(event("silence.it")).expect("it is accepted in the end");
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut waiting = || client.query_one(waiting, &[]).expect("a count").get::<_, i64>(0);
        wait_until("a commit waits", || waiting() == 1);
        let (began, accepted_before) = (Instant::now(), accepted.load(Ordering::SeqCst));
        // The connection is checked after `SILENCE`, and again after 5 s.
        wait_until("it has waited for long", || {
            assert_eq!(waiting(), 1);
            let error = last_error(broker);
            assert!(!error.contains("replaced"), "{error}");
            began.elapsed() > SILENCE + Duration::from_secs(8)
        });
        stop.store(true, Ordering::SeqCst);
        server.set("synchronous_standby_names = ''\n");
        server.reload();
        wait_until("it is accepted", || accepted.load(Ordering::SeqCst) > accepted_before);
    });
    assert!(path.broker.stop(PATIENCE).is_clean());
}
