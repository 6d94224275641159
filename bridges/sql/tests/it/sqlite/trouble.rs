//! Faults of a file or a setting. The error names the fault, no event is lost, and nothing panics.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::Folder;
use eventbroker::{Broker, Event, PublishError, Source, SubscribeOptions};
use eventbroker_sql::Sqlite;
use eventbroker_sql::sqlite::OpenError;
use rusqlite::Connection;

const PATIENCE: Duration = Duration::from_secs(20);

fn refusal(sqlite: &Sqlite) -> OpenError {
    sqlite.open().expect_err("it is refused")
}

fn event(number: usize) -> Event {
    Event::builder(Source::System, "trouble.it").payload(&number).build().expect("a valid event")
}

#[test]
fn a_table_name_must_be_a_plain_one() {
    let folder = Folder::new();
    for name in ["", "a\"b", "a'; DROP TABLE x; --", "a b", "1st", "Events", "täble", &"a".repeat(49)] {
        let error = refusal(&Sqlite::new(folder.file("events.db")).table_name(name));
        assert!(matches!(error, OpenError::Name(_)), "{error:?}");
        assert!(error.to_string().starts_with("table_name: "), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing was made");
}

#[test]
fn values_with_quotes_are_values() {
    let folder = Folder::new();
    let sqlite = Sqlite::new(folder.file("it's \"quoted\".db")).consumer_group("g'r\"oup").table_name("my_events");
    let broker = Broker::builder().provider(sqlite.open().expect("it opens")).start().expect("it starts");
    let (sender, calls) = channel();
    broker
        .subscribe_with(SubscribeOptions::new("it's.\"*\".*").name("na'me\"; --"), move |delivery| {
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().clone());
        })
        .expect_err("a wildcard is a whole segment");
    let (sender, calls) = {
        drop(calls);
        channel()
    };
    broker
        .subscribe_with(SubscribeOptions::new("it's.*.\"quoted\"").name("na'me\"; --"), move |delivery| {
            let _ = sender.send(delivery.event().clone());
        })
        .expect("a subscription");
    let sent = Event::builder(Source::System, "it's.a[b]?.\"quoted\"")
        .id("i'd\"")
        .key("k'ey\"")
        .session_id("s'")
        .payload("p'\"\\")
        .metadata("m'\"", "v'\"")
        .build()
        .expect("a valid event");
    broker.publish(sent.clone()).expect("it is accepted");
    let came = calls.recv_timeout(PATIENCE).expect("it is delivered");
    assert!(came.same_content(&sent), "{came:?}");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn settings_out_of_bounds_are_named() {
    let folder = Folder::new();
    let sqlite = || Sqlite::new(folder.file("events.db"));
    let error = refusal(&sqlite().lease_time(Duration::from_millis(99))).to_string();
    assert_eq!(error, "lease_time: is 99ms, at least 100ms is required");
    let error = refusal(&sqlite().consumer_group("")).to_string();
    assert_eq!(error, "consumer_group: is 0 bytes long, 1 to 255 are allowed");
}

#[test]
fn a_table_of_another_program_is_left_alone() {
    let folder = Folder::new();
    let path = folder.file("other.db");
    let theirs = Connection::open(&path).expect("it opens");
    theirs
        .execute_batch("CREATE TABLE events (id VARCHAR(255) PRIMARY KEY, type VARCHAR(255)); INSERT INTO events VALUES ('1', 'a')")
        .expect("a table");
    let error = refusal(&Sqlite::new(&path)).to_string();
    assert!(error.contains("table_name") && error.contains("position, key, origin"), "{error}");
    let rows: i64 = theirs.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("a count");
    let tables: i64 = theirs.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).expect("a count");
    assert_eq!((rows, tables), (1, 2), "the table with its index is all there is");
    Sqlite::new(&path).table_name("mine").open().expect("another name will do");
}

#[test]
fn tables_of_a_later_version_are_left_alone() {
    let folder = Folder::new();
    let path = folder.file("events.db");
    Sqlite::new(&path).open().expect("it opens");
    let later = Connection::open(&path).expect("it opens");
    later.execute("UPDATE events_meta SET value = 99 WHERE name = 'version'", []).expect("a change");
    let error = refusal(&Sqlite::new(&path)).to_string();
    assert!(error.contains("version 99"), "{error}");
}

#[test]
fn a_file_that_is_not_a_database_is_left_alone() {
    let folder = Folder::new();
    let path = folder.file("notes.txt");
    fs::write(&path, "not a database, but long enough to have a header that could be one".repeat(40)).expect("a file");
    let error = refusal(&Sqlite::new(&path));
    assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("notes.txt"), "{error}");
    let error = refusal(&Sqlite::new(folder.path().join("no such folder").join("events.db")));
    assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");
}

#[test]
fn many_may_open_a_new_file_at_once() {
    let folder = Folder::new();
    let path = folder.file("events.db");
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..16).map(|_| scope.spawn(|| Sqlite::new(&path).open().map(drop))).collect();
        for opened in opened {
            opened.join().expect("no panic").expect("it opens");
        }
    });
}

/// Runs a system command. Returns false if the command fails or is not permitted.
fn run(command: &str, arguments: &[&str]) -> bool {
    Command::new(command).args(arguments).status().is_ok_and(|status| status.success())
}

/// A small tmpfs, unmounted on drop.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at.to_str()?]).then_some(Self(at))
    }

    fn remount(&self, options: &str) {
        assert!(run("mount", &["-o", &format!("remount,{options}"), self.0.to_str().expect("a path")]));
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazy, because the broker may still have files open.
        run("umount", &["-l", self.0.to_str().expect("a path")]);
    }
}

#[test]
fn publishes_go_on_after_a_full_disk() {
    let folder = Folder::new();
    let Some(disk) = SmallDisk::mount(folder.path(), "700k") else {
        println!("skipped: it takes the right to mount a file system");
        return;
    };
    let open = || Sqlite::new(folder.file("events.db")).open().expect("it opens");
    let mut config = eventbroker::Config::default();
    config.sync_timeout = Duration::from_millis(500);
    let broker = Broker::builder().config(config).provider(open()).start().expect("it starts");
    let (mut accepted, mut number) = (Vec::new(), 0);
    let unknown = loop {
        number += 1;
        let large = Event::builder(Source::System, "trouble.it").payload(&"x".repeat(4_000)).build().expect("valid");
        match broker.publish(large) {
            Ok(it) => accepted.push(it.id),
            Err(error) => break error,
        }
        assert!(number < 10_000, "it never gets full");
    };
    assert!(matches!(unknown, PublishError::Unknown { .. }), "{unknown}");
    let error = broker.stats().bridge.and_then(|it| it.last_error).expect("an error");
    assert!(error.contains("full"), "{error}");
    disk.remount("size=8m");
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = broker.publish(unknown.event().clone()) {
        assert!(Instant::now() < deadline, "{error}");
    }
    accepted.push(unknown.event().id().clone());
    broker.stop(PATIENCE);
    let again = Broker::builder().provider(open()).start().expect("it starts");
    let lost = accepted.iter().filter(|id| again.get(id).expect("it answers").is_none()).count();
    assert_eq!(lost, 0, "of {}", accepted.len());
    again.stop(PATIENCE);
}

#[test]
fn a_read_only_file_is_refused_at_open() {
    let folder = Folder::new();
    let Some(disk) = SmallDisk::mount(folder.path(), "4m") else {
        println!("skipped: it takes the right to mount a file system");
        return;
    };
    let path = folder.file("events.db");
    let broker = Broker::builder().provider(Sqlite::new(&path).open().expect("it opens")).start().expect("it starts");
    let id = broker.publish(event(1)).expect("it is accepted").id;
    broker.stop(PATIENCE);
    // The broker keeps the file open for queries until it is dropped.
    drop(broker);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("a change");
    disk.remount("ro");
    let error = refusal(&Sqlite::new(&path));
    assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("events.db"), "{error}");
    disk.remount("rw");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a change");
    let again = Broker::builder().provider(Sqlite::new(&path).open().expect("it opens")).start().expect("it starts");
    assert!(again.get(&id).expect("it answers").is_some());
    again.stop(PATIENCE);
}
