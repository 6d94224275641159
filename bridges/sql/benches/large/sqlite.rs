//! A file of many events.

use std::path::PathBuf;
use std::{env, fs, process};

use eventbroker::provider::Provider;
use eventbroker_sql::Sqlite;
use rusqlite::Connection;

use super::{RETENTION, Table, prepare, steps};

pub(super) struct File {
    folder: PathBuf,
    rows: u64,
}

impl Table for File {
    fn rows(&self) -> u64 {
        self.rows
    }

    fn provider(&self) -> Provider {
        Sqlite::new(self.folder.join("events.db")).retention(RETENTION).open().expect("it opens")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // It is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(super) fn filled(rows: u64) -> File {
    let folder = env::temp_dir().join(format!("eventbroker-sql-large-{}-{rows}", process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = File { folder, rows };
    prepare(file.provider());
    let sql = Connection::open(file.folder.join("events.db")).expect("it opens");
    let trigger: String = sql
        .query_row("SELECT sql FROM sqlite_master WHERE type = 'trigger'", [], |row| row.get(0))
        .expect("the trigger that makes deliveries");
    sql.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; DROP TRIGGER events_deliver;")
        .expect("it is dropped");
    let number = "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)";
    let failed = "i % 10000 = 9999";
    for step in steps(rows) {
        let events = format!(
            "{number} INSERT INTO events (id, source, type, status, payload, user_id, instance_id, schema, entity, \
             operation, created_at, completed_at, key) SELECT printf('01900000-0000-7000-8000-%012d', i), 'database', \
             'shop.entity' || (i % 50) || '.create', CASE WHEN {failed} THEN 'failed' ELSE 'completed' END, \
             '{{\"total\":' || i || '}}', i % 10000, 'host', 'shop', 'entity' || (i % 50), 'create', \
             strftime('%Y-%m-%dT%H:%M:%S.000000000Z', 1700000000 + i / 100, 'unixepoch'), \
             strftime('%Y-%m-%dT%H:%M:%S.000000000Z', 'now'), 'k' || (i % 100000) FROM n"
        );
        sql.execute(&events, step).expect("events");
        let deliveries = format!(
            "{number} INSERT INTO events_deliveries (position, subscription, state, key, attempts, settled_at) \
             SELECT i + 1, 1, CASE WHEN {failed} THEN 3 ELSE 2 END, 'k' || (i % 100000), 1, '2026' FROM n"
        );
        sql.execute(&deliveries, step).expect("deliveries");
    }
    sql.execute_batch(&trigger).expect("it is made again");
    file
}
