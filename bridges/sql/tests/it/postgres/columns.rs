//! Columns that an operator changes while brokers run: statements that were planned for the earlier ones are planned again.

use std::sync::mpsc::channel;

use eventbroker::query::Filter;
use eventbroker::{Broker, SubscribeOptions};
use eventbroker_conformance::pgbouncer::PgBouncer;
use eventbroker_conformance::watch::{PATIENCE, event, wait_until};
use eventbroker_sql::{Pooler, Postgres};
use postgres::{Client, NoTls};

/// Types that hold the same values, another order of columns, and one more column.
const CHANGES: [&str; 4] = [
    "ALTER TABLE events ALTER COLUMN session_id TYPE varchar(200), ALTER COLUMN error TYPE varchar",
    "ALTER TABLE events ALTER COLUMN payload TYPE jsonb",
    "ALTER TABLE events ADD COLUMN noted text DEFAULT 'none', ALTER COLUMN retry_count TYPE bigint",
    "ALTER TABLE events DROP COLUMN noted",
];

#[test]
fn a_broker_works_on_when_columns_change() {
    work_on(&super::server().database(), |url| Postgres::new(url));
}

#[test]
fn a_broker_behind_a_pooler_works_on_when_columns_change() {
    let pooler = PgBouncer::start(super::server());
    work_on(&super::server().database(), |url| Postgres::new(pooler.through(url)).pooler(Pooler::True));
}

fn work_on(url: &str, postgres: impl Fn(&str) -> Postgres) {
    let broker = Broker::builder().provider(postgres(url).open().expect("it opens")).start().expect("it starts");
    let mut operator = Client::connect(url, NoTls).expect("it connects");
    let (sender, calls) = channel();
    let options = SubscribeOptions::new("*").name("all");
    // The receiver is dropped when the test has ended.
    broker.subscribe_with(options, move |delivery| _ = sender.send(delivery.event().id().clone())).expect("known");
    let use_all = || {
        // From the sixth execution on, PostgreSQL keeps a plan. There is more than one connection.
        for _ in 0..14 {
            let id = broker.publish(event("columns.it")).expect("it is accepted").id;
            assert_eq!(calls.recv_timeout(PATIENCE).expect("it is delivered"), id);
            assert!(broker.get(&id).expect("it answers").is_some());
            broker.list(&Filter::default()).expect("it answers");
        }
        let open =
            || broker.back_end_stats().expect("it answers").subscriptions.iter().map(|it| it.leased).sum::<u64>();
        wait_until("all are settled", || open() == 0);
    };
    use_all();
    for change in CHANGES {
        operator.batch_execute(change).expect("its owner may");
        use_all();
        let error = broker.stats().bridge.and_then(|bridge| bridge.last_error);
        assert_eq!(error, None, "after {change}");
    }
    assert!(broker.stop(PATIENCE).is_clean());
}
