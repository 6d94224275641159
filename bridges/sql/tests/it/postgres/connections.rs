//! The number of connections of an instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use eventbroker::query::Filter;
use eventbroker::{Broker, StartPosition, SubscribeOptions};
use eventbroker_conformance::postgres::Server;
use eventbroker_conformance::watch::{PATIENCE, event, wait_until};
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

const INSTANCES: usize = 20;
const EACH: usize = 10;

/// Instances that publish, handle, list, and follow the events of all, with each number of connections.
#[test]
fn an_instance_has_no_more_connections_than_are_allowed() {
    for (allowed, postgres) in [
        (3, (|url| Postgres::new(url)) as fn(&str) -> Postgres),
        (1, |url| Postgres::new(url).max_connections(1)),
        (5, |url| Postgres::new(url).max_connections(5)),
    ] {
        let most = most_connections(&postgres);
        println!("{allowed} allowed: at most {most} of {INSTANCES} instances");
        assert!(most <= allowed * INSTANCES, "{allowed} allowed: {most} connections of {INSTANCES} instances");
        assert!(most >= INSTANCES, "{most} connections were seen");
    }
}

/// The largest number of connections that was seen while the instances were at work.
fn most_connections(postgres: &dyn Fn(&str) -> Postgres) -> usize {
    let server = Server::start();
    let url = server.database();
    let brokers: Vec<Broker> = (0..INSTANCES)
        .map(|_| Broker::builder().provider(postgres(&url).open().expect("it opens")).start().expect("it starts"))
        .collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let counting = thread::spawn(move || {
        let mut observer = Client::connect(&url, NoTls).expect("it connects");
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'eventbroker'";
        let mut most = 0;
        while !over.load(Ordering::SeqCst) {
            most = most.max(observer.query_one(count, &[]).expect("a count").get::<_, i64>(0));
        }
        most as usize
    });
    let handled = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for broker in &brokers {
            let handled = Arc::clone(&handled);
            scope.spawn(move || {
                let options = SubscribeOptions::new("count.*").name("all");
                broker.subscribe_with(options, move |_| _ = handled.fetch_add(1, Ordering::SeqCst)).expect("known");
                let stream = broker.stream_from("count.*", StartPosition::Earliest).expect("it follows");
                for _ in 0..EACH {
                    broker.publish(event("count.it")).expect("it is accepted");
                    broker.list(&Filter::default()).expect("it answers");
                }
                stream.recv_timeout(PATIENCE).expect("the events of all");
            });
        }
    });
    wait_until("all are handled", || handled.load(Ordering::SeqCst) == INSTANCES * EACH);
    is_over.store(true, Ordering::SeqCst);
    let most = counting.join().expect("no panic");
    assert!(brokers.iter().all(|broker| broker.stop(PATIENCE).is_clean()));
    most
}
