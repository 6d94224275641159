//! Processes that share an SQLite file and die: the cases of every provider, and what only a file can show.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker::{Event, Scope, Source, SubscribeOptions};
use eventbroker_conformance::processes::ledger::calls;
use eventbroker_conformance::processes::{self, Member, PATIENCE, Place, Scene, Site, wait_until};
use eventbroker_sql::Sqlite;
use rusqlite::Connection;
use support::Folder;

mod support;

/// Files, in folders of their own.
struct Files;

struct OneFile {
    path: String,
    /// Goes with it.
    _folder: Folder,
}

impl Site for Files {
    fn fresh(&self) -> Box<dyn Place> {
        let folder = Folder::new();
        let path = folder.file("events.db").to_str().expect("a text").to_owned();
        Box::new(OneFile { path, _folder: folder })
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        Sqlite::new(address).lease_time(lease).open().expect("it opens")
    }

    /// The process is seen to have gone, however long its lease is.
    fn name_stays(&self) -> Duration {
        Duration::ZERO
    }
}

impl Place for OneFile {
    fn address(&self) -> &str {
        &self.path
    }

    fn check(&self) {
        let connection = Connection::open(&self.path).expect("it opens");
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
        assert_eq!(check, "ok");
    }

    /// One that is frozen while it writes holds the lock of the file, and nobody can do anything about that.
    fn freeze(&self, member: &Member) {
        let connection = Connection::open(&self.path).expect("it opens");
        connection.busy_timeout(Duration::from_millis(200)).expect("a setting");
        member.freeze(true);
        while connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err() {
            member.freeze(false);
            thread::sleep(Duration::from_millis(1));
            member.freeze(true);
        }
    }

    fn deliveries(&self) -> Vec<String> {
        let connection = Connection::open(&self.path).expect("it opens");
        let query =
            "SELECT concat_ws(' ', position, claims, holder, token, state) FROM events_deliveries ORDER BY position";
        let mut statement = connection.prepare(query).expect("a statement");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    }
}

fn main() {
    processes::run(&Files, &[("what is committed by another process arrives, what is rolled back does not", outbox)]);
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
