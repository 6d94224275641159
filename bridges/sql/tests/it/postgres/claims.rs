//! The cost of a claim does not depend on PostgreSQL's table statistics. New tables have none for a minute, and a queue
//! may have filled since the last analyze.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use eventbroker::{Broker, SubscribeOptions};
use eventbroker_conformance::postgres::Server;
use eventbroker_conformance::watch::{PATIENCE, event, wait_until};
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

/// Claims of single deliveries that come first. From the sixth execution on, PostgreSQL keeps its plan.
const FEW: usize = 10;
const MANY: usize = 20_000;

#[test]
fn claims_from_a_full_queue_read_only_its_oldest_end() {
    for looked in ["", "VACUUM ANALYZE"] {
        fill_up(super::server(), looked);
    }
}

/// Executes the SQL `looked` while the tables are empty. Autovacuum is off, so that the statistics stay as they are.
fn fill_up(server: &Server, looked: &str) {
    let url = server.database();
    let broker = Broker::builder().provider(Postgres::new(&url).open().expect("it opens")).start().expect("it starts");
    let mut client = Client::connect(&url, NoTls).expect("it connects");
    let nobody_counts = "ALTER TABLE events SET (autovacuum_enabled = off); \
         ALTER TABLE events_deliveries SET (autovacuum_enabled = off)";
    client.batch_execute(nobody_counts).expect("its owner may");
    client.batch_execute(looked).expect("its owner may");
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let subscription = broker
        .subscribe_with(SubscribeOptions::new("claims.*").name("all"), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .expect("a subscription");
    for number in 1..=FEW {
        broker.publish(event("claims.it")).expect("it is accepted");
        wait_until("it is handled", || handled.load(Ordering::SeqCst) == number);
    }
    broker.pause(subscription).expect("it is there");
    for _ in 0..MANY / 1_000 {
        assert!(broker.publish_batch((0..1_000).map(|_| event("claims.it"))).iter().all(Result::is_ok));
    }
    broker.resume(subscription).expect("it is there");
    wait_until("all are handled", || handled.load(Ordering::SeqCst) == FEW + MANY);
    // PostgreSQL counts the reads of a session when the session ends.
    assert!(broker.stop(PATIENCE).is_clean());
    drop(broker);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
    wait_until("the others' sessions have ended", || {
        client.query_one(sessions, &[]).expect("a count").get::<_, i64>(0) == 1
    });
    let read =
        "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname IN ('events', 'events_deliveries')";
    let read: i64 = client.query_one(read, &[]).expect("a count").get(0);
    let each = read / (FEW + MANY) as i64;
    println!("{looked:?}: {each} index entries were read for each delivery");
    assert!(each < 100, "{read} index entries were read for {} deliveries", FEW + MANY);
}
