//! What the provider sees to by itself on a server: old events go.

use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Event, Source};
use eventbroker_conformance::postgres::Server;
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(postgres: &Postgres) -> Broker {
    Broker::builder().provider(postgres.open().expect("it opens")).start().expect("it starts")
}

#[test]
fn what_has_piled_up_goes_at_once_even_if_nobody_subscribes() {
    let server = Server::start();
    let url = server.database();
    let postgres = Postgres::new(&url);
    let broker = start(&postgres);
    let event = || Event::builder(Source::System, "nobody.listens").build().expect("a valid event");
    let accepted = broker.publish_batch((0..5_000).map(|_| event()));
    assert!(accepted.iter().all(Result::is_ok));
    broker.stop(PATIENCE);
    let short = start(&postgres.retention(Duration::ZERO));
    let mut client = Client::connect(&url, NoTls).expect("it connects");
    let deadline = Instant::now() + PATIENCE;
    while client.query_one("SELECT count(*) FROM events", &[]).expect("a count").get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "some are still there");
        thread::sleep(Duration::from_millis(5));
    }
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let listening: i64 = client.query_one(listening, &[]).expect("a count").get(0);
    assert_eq!(listening, 0, "who receives nothing needs no connection for notifications");
    short.stop(PATIENCE);
}
