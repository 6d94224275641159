//! The cases of every provider with processes that die and share an SQLite file, and at the same time with others that
//! share a PostgreSQL database. One case is for the file only.

#[cfg(feature = "postgres")]
mod databases;
mod files;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker::{Event, Scope, Source, SubscribeOptions};
use eventbroker_conformance::processes::ledger::calls;
use eventbroker_conformance::processes::{PATIENCE, Place, Scene, Site, is_member, run, wait_until};
use rusqlite::Connection;

/// Opens a file or a database for a member, by its address.
struct Either;

impl Site for Either {
    fn fresh(&self) -> Box<dyn Place> {
        unreachable!("a member makes none")
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        #[cfg(feature = "postgres")]
        if address.starts_with("postgres:") {
            return databases::Databases.open(address, lease);
        }
        files::Files.open(address, lease)
    }
}

fn main() {
    if is_member() {
        return run(&Either, &[]);
    }
    thread::scope(|scope| {
        #[cfg(feature = "postgres")]
        scope.spawn(|| run(&databases::Databases, &[]));
        scope.spawn(|| {
            run(&files::Files, &[("committed events of another process arrive, rolled back ones do not", outbox)])
        });
    });
}

fn outbox(scene: &mut Scene<'_>) {
    let (file, ledger) = (scene.place.address(), &scene.ledger);
    scene.declare();
    let local = scene.broker();
    local
        .subscribe_with(SubscribeOptions::new("work.**").name("near").scope(Scope::Local), |_| -> () {
            unreachable!("a transaction of another connection is no publish of this broker")
        })
        .expect("a subscription");
    let _member = scene.member("consumer");
    let mut connection = Connection::open(file).expect("it opens");
    connection.busy_timeout(PATIENCE).expect("a setting");
    connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)", []).expect("a table");
    let mut committed = BTreeSet::new();
    for number in 0..100_u64 {
        let event = Event::builder(Source::Database, "work.order").payload(&number).build().expect("a valid event");
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("a transaction");
        transaction.execute("INSERT INTO orders DEFAULT VALUES", []).expect("a row");
        assert_eq!(eventbroker_sql::sqlite::publish_in(&transaction, &event), Ok(true));
        assert_eq!(eventbroker_sql::sqlite::publish_in(&transaction, &event), Ok(false), "its id is known");
        if number % 3 == 0 {
            transaction.rollback().expect("it is rolled back");
        } else {
            transaction.commit().expect("it is committed");
            committed.insert(event.id().to_string());
        }
    }
    let handled = || -> BTreeSet<String> { calls(ledger).into_iter().collect() };
    wait_until("all that was committed arrives", || handled().is_superset(&committed));
    assert_eq!(handled(), committed, "and nothing else");
    assert!(local.stop(PATIENCE).is_clean());
    println!("  {} committed and handled, {} rolled back", committed.len(), 100 - committed.len());
}
