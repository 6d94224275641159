//! SQLite files, each in its own folder, for processes that share one of them.

use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::Provider;
use eventbroker_conformance::processes::{Fault, Folder, Member, PATIENCE, Place, Site};
use eventbroker_sql::Sqlite;
use rusqlite::Connection;

/// Creates files, each in its own folder.
pub(crate) struct Files;

/// A file, and its folder, which is removed on drop.
struct OneFile {
    path: String,
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

    /// Other members detect the end of the process through `/proc`, so its lease does not matter.
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

    /// A member that is frozen while it writes holds the file's lock, so it is frozen again until the lock is free.
    fn freeze(&self, member: &Member) {
        let connection = Connection::open(&self.path).expect("it opens");
        connection.busy_timeout(Duration::from_millis(200)).expect("a setting");
        member.freeze(true);
        let deadline = Instant::now() + PATIENCE;
        while connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err() {
            assert!(Instant::now() < deadline, "it holds the lock whenever it is frozen");
            member.freeze(false);
            thread::sleep(Duration::from_millis(1));
            member.freeze(true);
        }
    }

    /// The fault is another program that holds the file's lock.
    fn faults(&self) -> &'static [Fault] {
        &[Fault::Freeze]
    }

    fn suffer(&self, _fault: Fault, lasts: Duration) {
        let connection = Connection::open(&self.path).expect("it opens");
        connection.busy_timeout(PATIENCE).expect("a setting");
        connection.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        thread::sleep(lasts);
        connection.execute_batch("ROLLBACK").expect("it is let go");
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
