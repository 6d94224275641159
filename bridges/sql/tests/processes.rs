//! Processes that share an SQLite file and die: the cases of every provider, and what only a file can show.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker::query::Filter;
use eventbroker::{Event, Scope, Source, Status, SubscribeOptions};
use eventbroker_conformance::processes::ledger::{calls, lines};
use eventbroker_conformance::processes::{self, LEASE, Ledger, Member, PATIENCE, Place, Scene, Site, wait_until, work};
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
}

fn main() {
    processes::run(
        &Files,
        &[
            ("a member that was frozen for three leases changes nothing afterwards", frozen),
            ("what is committed by another process arrives, what is rolled back does not", outbox),
        ],
    );
}

/// Deliveries that were claimed more than once.
fn claimed_again(file: &Path) -> i64 {
    let connection = Connection::open(file).expect("it opens");
    let query = "SELECT count(*) FROM events_deliveries WHERE claims > 1";
    connection.query_row(query, [], |row| row.get(0)).expect("a count")
}

/// One that is frozen while it writes holds the lock of the file, and nobody can do anything about that.
fn freeze_between_writes(member: &Member, file: &Path) {
    let connection = Connection::open(file).expect("it opens");
    connection.busy_timeout(Duration::from_millis(200)).expect("a setting");
    member.freeze(true);
    while connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err() {
        member.freeze(false);
        thread::sleep(Duration::from_millis(1));
        member.freeze(true);
    }
}

fn frozen(scene: &mut Scene<'_>) {
    const EVENTS: u64 = 200;
    let (file, ledger) = (Path::new(scene.place.address()), &scene.ledger);
    scene.declare();
    let parent = scene.broker();
    let member = scene.member("consumer");
    let event =
        |number: &u64| Event::builder(Source::System, "work.it").payload(number).build().expect("a valid event");
    let events: Vec<Event> = (0..EVENTS).map(|number| event(&number)).collect();
    assert!(parent.publish_batch(events).iter().all(Result::is_ok));
    wait_until("the member works", || !lines(ledger).is_empty());
    freeze_between_writes(&member, file);
    let settled = || lines(ledger).len();
    let before = settled();
    let ledger_here = Ledger::open(ledger);
    parent
        .subscribe_with(work(), move |delivery| {
            ledger_here.write(&format!("{} - here", delivery.event().id()));
        })
        .expect("a subscription");
    let is_done = || {
        let filter = Filter { status: Some(Status::Completed), limit: Some(10_000), ..Filter::default() };
        parent.list(&filter).expect("it answers").events.len() == EVENTS as usize
    };
    wait_until("this member takes over", is_done);
    thread::sleep(3 * LEASE);
    let settled_by = || -> Vec<(i64, Option<String>, Option<i64>, i64)> {
        let connection = Connection::open(file).expect("it opens");
        let query = "SELECT position, holder, token, state FROM events_deliveries ORDER BY position";
        let mut statement = connection.prepare(query).expect("a statement");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        rows.expect("rows").collect::<Result<_, _>>().expect("rows")
    };
    let (rows, taken_over) = (settled_by(), claimed_again(file));
    assert!(taken_over > 0, "it held nothing when it was frozen");
    member.freeze(false);
    // It is awake when it handles what comes now; by then it has told what it thought that it had to tell.
    let broker = parent;
    let subscription = broker.stats().subscriptions[0].id;
    broker.unsubscribe(subscription).expect("it is there");
    let event = Event::builder(Source::System, "work.last").payload(&0).build().expect("a valid event");
    let last = broker.publish(event).expect("it is accepted").id.to_string();
    wait_until("the member is awake", || lines(ledger).iter().any(|line| line.starts_with(&last)));
    wait_until("all are settled", || {
        broker
            .get(&last.parse().expect("an id"))
            .expect("it answers")
            .is_some_and(|it| it.status() == Status::Completed)
    });
    assert_eq!(settled_by()[..rows.len()], rows, "nothing that it settled late was written");
    let calls = lines(ledger);
    let all: BTreeSet<&str> = calls.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(all.len(), EVENTS as usize + 1);
    let by_member = calls.iter().filter(|line| !line.ends_with(" here")).count();
    let late = by_member - before - 1;
    assert!(late <= 4, "{late} calls, more than ran when it was frozen, went on with what it had lost");
    let repeated = calls.len() - all.len();
    broker.stop(PATIENCE);
    println!("  {EVENTS} events, {before} before it was frozen, taken over {taken_over}, handled twice {repeated}");
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
