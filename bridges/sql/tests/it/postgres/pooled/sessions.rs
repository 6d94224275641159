//! Nothing of this bridge rests on a session, and nothing of it stays in one: other clients of the pooler get the same sessions.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use eventbroker::{Broker, EventId, SubscribeOptions};
use eventbroker_conformance::pgbouncer::PgBouncer;
use eventbroker_conformance::postgres::{PASSWORD, Server};
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::watch::{PATIENCE, event, wait_until};
use eventbroker_sql::{OpenError, Pooler, Postgres};
use postgres::{Client, NoTls, SimpleQueryMessage};

use super::pooler;
use crate::postgres::server;

fn start(postgres: &Postgres) -> Broker {
    Broker::builder().provider(postgres.open().expect("it opens")).start().expect("it starts")
}

fn listening(broker: &Broker) -> Receiver<EventId> {
    let (sender, calls) = channel();
    let options = SubscribeOptions::new("*").name("all");
    // The receiver is dropped when the test has ended.
    broker.subscribe_with(options, move |delivery| _ = sender.send(delivery.event().id().clone())).expect("known");
    calls
}

/// The rows of a query, read without a prepared statement.
fn texts(client: &mut Client, query: &str) -> Vec<String> {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    };
    client.simple_query(query).expect("rows").iter().filter_map(row).collect()
}

/// A client of the same pooler has switched syncing off in the only session. Every event that is accepted is synced all the same, and the
/// session keeps the settings of that client.
#[test]
fn an_accepted_event_is_synced_whatever_another_client_has_set_for_the_session() {
    let server = Server::start();
    let one_session = PgBouncer::with(&server, "default_pool_size = 1");
    let direct = server.database();
    let url = one_session.through(&direct);
    let mut other = Client::connect(&url, NoTls).expect("it connects");
    let mut observer = Client::connect(&direct, NoTls).expect("it connects");
    let broker = start(&Postgres::new(&url).pooler(Pooler::True));
    // A deferred trigger runs when the transaction is committed, and records how.
    let record = "CREATE TABLE commits (synced text);
         CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN INSERT INTO commits VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER record AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION record()";
    observer.batch_execute(record).expect("its owner may");
    let settings = "SELECT name, setting FROM pg_settings ORDER BY name";
    other.batch_execute("SET synchronous_commit = off; SET statement_timeout = '7s'").expect("its settings");
    let before = texts(&mut other, settings);
    let calls = listening(&broker);
    for _ in 0..20 {
        let id = broker.publish(event("pooled.it")).expect("it is accepted").id;
        assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    }
    let commits = "SELECT count(*), count(*) FILTER (WHERE synced = 'on') FROM commits";
    let row = observer.query_one(commits, &[]).expect("two counts");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (20, 20), "commits, and synced ones");
    assert_eq!(texts(&mut other, settings), before, "the settings of the session");
    let rest = "SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()), \
         (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')";
    assert_eq!(texts(&mut other, rest), ["0 0 0"], "prepared statements, channels, locks");
    assert!(broker.stop(PATIENCE).is_clean());
}

/// `auto` finds the pooler, and the session of each connection when there is none.
#[test]
fn opening_finds_the_pooler() {
    let direct = server().database();
    let url = pooler().through(&direct);
    let broker = start(&Postgres::new(&url));
    let calls = listening(&broker);
    let id = broker.publish(event("found.it")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    let mut observer = Client::connect(&direct, NoTls).expect("it connects");
    let mut listening = || {
        let listening =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        observer.query_one(listening, &[]).expect("a count").get::<_, i64>(0)
    };
    assert_eq!(listening(), 0, "nothing listens through the pooler");
    assert!(broker.stop(PATIENCE).is_clean());
    let error = Postgres::new(&url).pooler(Pooler::False).open().expect_err("it is refused");
    assert!(matches!(error, OpenError::Setting(_)), "{error:?}");
    assert!(error.to_string().starts_with("pooler: is false, but a pooler shares"), "{error}");
    let broker = start(&Postgres::new(&direct).pooler(Pooler::False));
    let _calls = self::listening(&broker);
    wait_until("it listens", || listening() == 1);
    assert!(broker.stop(PATIENCE).is_clean());
}

/// A pooler comes in between after the opening, and gives the connections other sessions than those that have prepared their statements.
#[test]
fn a_pooler_that_was_not_there_at_the_opening_is_named_at_its_first_sign() {
    let server = server();
    let direct = server.database();
    let (pooler, proxy) = (PgBouncer::start(server), Proxy::to(server.port()));
    let url = server.tcp(&direct, PASSWORD).replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let mut config = eventbroker::Config::default();
    config.sync_timeout = Duration::from_millis(500);
    let provider = Postgres::new(url).pooler(Pooler::False).open().expect("it opens");
    let broker = Broker::builder().config(config).provider(provider).start().expect("it starts");
    proxy.set_down(true);
    proxy.lead_to(pooler.port());
    proxy.set_down(false);
    wait_until("it publishes through the pooler", || broker.publish(event("sign.it")).is_ok());
    let mut observer = Client::connect(&direct, NoTls).expect("it connects");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    wait_until("the pooler is named", || {
        observer.query(end, &[]).expect("the sessions end");
        // The publish may be unknown, because the server has the broker's events in no session any more.
        let _ = broker.publish(event("sign.it"));
        let error = broker.stats().bridge.and_then(|bridge| bridge.last_error).unwrap_or_default();
        error.contains("a pooler shares the server's sessions between clients, so pooler: true is required")
    });
    broker.stop(Duration::ZERO);
}

#[test]
fn a_pooler_that_allows_no_transactions_is_refused() {
    let pooler = PgBouncer::with(server(), "pool_mode = statement");
    for setting in [Pooler::Auto, Pooler::True] {
        let postgres = Postgres::new(pooler.through(&server().database())).pooler(setting);
        let error = postgres.open().expect_err("it is refused").to_string();
        assert!(error.contains("a pooler shares sessions and allows no transactions"), "{error}");
    }
}

/// The poll interval is so long that only a notification can bring the event.
#[test]
fn notifications_come_through_an_address_without_a_pooler() {
    let direct = server().database();
    let url = pooler().through(&direct);
    let postgres = || Postgres::new(&url).pooler(Pooler::True).poll_interval(Duration::from_secs(3_600));
    let receiver = start(&postgres().listen_url(&direct));
    let calls = listening(&receiver);
    let mut observer = Client::connect(&direct, NoTls).expect("it connects");
    wait_until("it listens", || {
        let listening =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        observer.query_one(listening, &[]).expect("a count").get::<_, i64>(0) == 1
    });
    let publisher = start(&postgres());
    let id = publisher.publish(event("notified.it")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    assert!(publisher.stop(PATIENCE).is_clean());
    assert!(receiver.stop(PATIENCE).is_clean());
    let error = postgres().listen_url(&url).open().expect_err("it is refused").to_string();
    assert!(error.starts_with("listen_url: a pooler shares"), "{error}");
    let error = postgres().listen_url("mysql://x").open().expect_err("it is refused").to_string();
    assert!(error.starts_with("listen_url: is not of the form"), "{error}");
    let error = postgres().listen_url(&direct).max_connections(1).open().expect_err("it is refused").to_string();
    assert_eq!(error, "max_connections: is 1, at least 2 is required with listen_url");
}
