//! Housekeeping on PostgreSQL: events are removed after their retention, and the backlog is bounded.

use std::time::Duration;

use eventbroker::error::FullLimit;
use eventbroker::{Broker, PublishError, SubscribeOptions};
use eventbroker_conformance::watch::{PATIENCE, event, wait_until};
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

fn start(postgres: &Postgres) -> Broker {
    Broker::builder().provider(postgres.open().expect("it opens")).start().expect("it starts")
}

#[test]
fn many_expired_events_are_removed_at_once_without_a_subscription() {
    let url = super::server().database();
    let postgres = Postgres::new(&url);
    let broker = start(&postgres);
    let accepted = broker.publish_batch((0..5_000).map(|_| event("nobody.listens")));
    assert!(accepted.iter().all(Result::is_ok));
    broker.stop(PATIENCE);
    let short = start(&postgres.retention(Duration::ZERO));
    let mut client = Client::connect(&url, NoTls).expect("it connects");
    let mut held = || client.query_one("SELECT count(*) FROM events", &[]).expect("a count").get::<_, i64>(0);
    wait_until("all are gone", || held() == 0);
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let listening: i64 = client.query_one(listening, &[]).expect("a count").get(0);
    assert_eq!(listening, 0, "a broker without subscriptions needs no connection for notifications");
    short.stop(PATIENCE);
}

#[test]
fn publishes_are_refused_while_a_backlog_is_full() {
    let postgres = Postgres::new(super::server().database()).max_backlog(10);
    let (broker, other) = (start(&postgres), start(&postgres));
    let reader = || SubscribeOptions::new("much.*").name("reader");
    let absent = broker.subscribe_with(reader(), |_| ()).expect("a subscription");
    broker.unsubscribe(absent).expect("it is there");
    let first = event("much.it");
    for event in [first.clone()].into_iter().chain((1..10).map(|_| event("much.it"))) {
        broker.publish(event).expect("it is accepted");
    }
    wait_until("it is full", || other.publish(event("another.it")).is_err());
    let error = other.publish(event("another.it")).expect_err("it is full");
    assert!(matches!(&error, PublishError::Full { limit: FullLimit::Backlog { max: 10 }, .. }), "{error}");
    assert!(other.publish(first).expect("it is stored already").duplicate);
    broker.subscribe_with(reader(), |_| ()).expect("it is free");
    wait_until("there is room again", || other.publish(event("another.it")).is_ok());
    assert!(broker.stop(PATIENCE).is_clean());
    assert!(other.stop(PATIENCE).is_clean());
}
