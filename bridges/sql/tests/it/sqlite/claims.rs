//! A member that finds only rows of keys that another member works on does not delay those who write.

use std::thread;
use std::time::Duration;

use eventbroker::{Broker, Event, Source, SubscribeOptions};
use eventbroker_conformance::watch::PATIENCE;
use eventbroker_sql::Sqlite;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::support::Folder;

const WAITING: u64 = 3_000;
const WRITES: u32 = 50;

fn event(number: u64) -> Event {
    Event::builder(Source::System, "claims.it").key("hot").payload(&number).build().expect("a valid event")
}

#[test]
fn a_search_that_finds_nothing_does_not_lock_the_file() {
    let folder = Folder::new();
    let sqlite = Sqlite::new(folder.file("events.db"));
    let start = || Broker::builder().provider(sqlite.open().expect("it opens")).start().expect("it starts");
    let subscription = || SubscribeOptions::new("claims.*").name("all").queue_capacity(1);
    let (one, two) = (start(), start());
    let (begun, begins) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let ends = std::sync::Mutex::new(ends);
    one.subscribe_with(subscription(), move |_| {
        // The receiver is dropped when the test has ended.
        let _ = begun.send(());
        // An error means that the test has ended.
        let _ = ends.lock().expect("no panic under the lock").recv();
    })
    .expect("a subscription");
    one.publish(event(0)).expect("it is accepted");
    begins.recv_timeout(PATIENCE).expect("it is called, and keeps its key");
    for first in (1..WAITING).step_by(1_000) {
        assert!(one.publish_batch((first..first + 1_000).map(event)).iter().all(Result::is_ok));
    }
    two.subscribe_with(subscription(), |_| -> () { unreachable!("the key is another member's") })
        .expect("a subscription");
    let mut connection = Connection::open(folder.file("events.db")).expect("it opens");
    connection.busy_timeout(Duration::ZERO).expect("a setting");
    let mut busy = 0;
    for number in 0..WRITES {
        let mut write = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute("INSERT INTO events_meta VALUES (?1, 0)", [format!("test-{number}")])?;
            transaction.commit()
        };
        match write() {
            Ok(()) => {}
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
        // A member notices a commit after 1 ms, and searches.
        thread::sleep(Duration::from_millis(3));
    }
    println!("{busy} of {WRITES} writes found the file locked");
    // A heartbeat may lock it for a moment.
    assert!(busy < WRITES / 5, "{busy} of {WRITES} writes found the file locked");
    assert!(two.stop(PATIENCE).is_clean());
    drop(end);
    one.stop(PATIENCE);
}
