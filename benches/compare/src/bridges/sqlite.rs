//! SQLite: one file per turn. By hand: a loop with one connection writes and claims the same rows.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs, process};

use eventbroker::provider::Provider;
use eventbroker_sql::Sqlite;
use rusqlite::{Connection, Params, Transaction, TransactionBehavior};

use super::{Contestant, Site, apart, compare, consume, event, latency, prepare, publish, publish_buffered};
use crate::harness::Plan;
use crate::report::{Bound, Goal, Section};

const ONE: &str = "by hand, 1 per transaction";
const BATCHES: &str = "by hand, 64 per transaction";
const LARGE: &str = "by hand, 256 per transaction";
const LOOP: &str = "by hand, 1 loop";

/// Database files in a temporary folder, removed on drop.
struct Files {
    folder: PathBuf,
    next: Cell<u32>,
}

impl Site for Files {
    fn fresh(&self) -> String {
        self.next.set(self.next.get() + 1);
        self.folder.join(format!("{}.db", self.next.get())).display().to_string()
    }

    fn remove(&self, address: &str) {
        for end in ["", "-wal", "-shm"] {
            // On an error the file is removed with the folder.
            let _ = fs::remove_file(format!("{address}{end}"));
        }
    }

    fn provider(&self, address: &str) -> Provider {
        Sqlite::new(address).open().expect("it opens")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // On an error it stays in the temporary folder of the system.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn run(plan: &Plan) -> Section {
    let events = plan.pick(50_000, 600);
    let folder = env::temp_dir().join(format!("eventbroker-compare-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let site = &Files { folder, next: Cell::new(0) };
    let storing = [
        Contestant::by_hand("1 per transaction", |file| store_by_hand(site, file, events / 10, 1)),
        Contestant::by_hand("64 per transaction", |file| store_by_hand(site, file, events, 64)),
        Contestant::by_hand("256 per transaction", |file| store_by_hand(site, file, events, 256)),
        Contestant::ours("publish, 8 threads", |file| publish(site, file, events / 4, 8, 1)),
        Contestant::ours("publish, 64 threads", |file| publish(site, file, events, 64, 1)),
        Contestant::ours("publish_batch(64), 8 threads", |file| publish(site, file, events, 8, 64)),
        Contestant::ours("publish, buffered", |file| publish_buffered(site, file, events)),
    ];
    let storing = compare(plan, site, "storing, synced", &[ONE, BATCHES, LARGE], &storing);
    let handling = [
        Contestant::by_hand("1 loop", |file| consume_by_hand(site, file, events)),
        Contestant::ours("broker", |file| consume(site, file, events)),
    ];
    let handling = compare(plan, site, "handling with acknowledgement", &[LOOP], &handling);
    let inside = latency(plan, site);
    let between = apart::latency(plan, &site.fresh());
    let goal = |what: &str, figure, bound| Goal::new("P8", format!("SQLite: {what}"), figure, bound);
    let goals = vec![
        goal("confirmed/s from 64 threads", storing.figure("publish, 64 threads"), Bound::AtLeast(15_000.0)),
        goal("confirmed, 8 threads", storing.ratio("publish, 8 threads", ONE), Bound::AtLeast(0.7)),
        goal("publish_batch(64)", storing.ratio("publish_batch(64), 8 threads", BATCHES), Bound::AtLeast(0.5)),
        goal("buffered", storing.ratio("publish, buffered", LARGE), Bound::AtLeast(0.8)),
        goal("consuming", handling.ratio("broker", LOOP), Bound::AtLeast(0.7)),
        goal("publish to handler, p50 in ms", inside.figure("p50"), Bound::AtMost(2.0)),
        goal("between processes, p50 in ms", between.figure(apart::BUSY), Bound::AtMost(5.0)),
        goal("between processes after idle, at most, ms", between.most(apart::IDLE), Bound::AtMost(60.0)),
    ];
    Section {
        name: "sqlite",
        title: "SQLite",
        method: "WAL, synchronous=FULL, a new file per turn. By hand: one connection that writes the same rows, or claims 1,000 at a \
                 time with the same statements and settles 256 at a time, without syncing those. Between processes: from the time in \
                 the event to the wall clock in a handler of another process; after idle: the longest of events published after \
                 1.5 s without any.",
        tables: vec![storing, handling, inside, between],
        goals,
    }
}

/// Creates the tables with a subscription and `events` events, and opens a connection.
fn prepared(site: &Files, path: &str, events: u64, synchronous: &str) -> Connection {
    prepare(site, path, events);
    let connection = Connection::open(path).expect("it opens");
    connection.execute_batch(&format!("PRAGMA synchronous = {synchronous}")).expect("a setting");
    connection
}

fn in_transaction<T>(connection: &mut Connection, work: impl FnOnce(&Transaction<'_>) -> T) -> T {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).expect("it begins");
    let result = work(&transaction);
    transaction.commit().expect("it is committed");
    result
}

fn execute(transaction: &Transaction<'_>, sql: &str, values: impl Params) {
    transaction.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).expect("it is done");
}

fn store_by_hand(site: &Files, path: &str, events: u64, batch: u64) -> f64 {
    const INSERT: &str = "INSERT INTO events (id, source, type, payload, instance_id, schema, entity, operation, created_at) \
        VALUES (?1, 'system', ?2, ?3, 'hand', 'shop', 'orders', 'create', '2026-01-01T00:00:00.000000000Z')";
    let mut connection = prepared(site, path, 0, "FULL");
    let began = Instant::now();
    let batches = events.div_ceil(batch);
    for _ in 0..batches {
        in_transaction(&mut connection, |transaction| {
            for _ in 0..batch {
                let new = event().build().expect("a valid event");
                let values = (new.id().to_string(), new.event_type().as_str(), new.payload().as_str());
                execute(transaction, INSERT, values);
            }
        });
    }
    (batches * batch) as f64 / began.elapsed().as_secs_f64()
}

/// Claims and settles with the same statements and sizes, in a bare loop.
fn consume_by_hand(site: &Files, path: &str, events: u64) -> f64 {
    const SELECT: &str = "SELECT d.position, e.id, e.type, e.payload \
        FROM (SELECT position, subscription, key FROM events_deliveries \
        WHERE state = 0 AND subscription = 1 ORDER BY position LIMIT 11000) d JOIN events e ON e.position = d.position \
        WHERE d.key IS NULL OR NOT EXISTS (SELECT 1 FROM events_deliveries h \
        WHERE h.subscription = d.subscription AND h.key = d.key AND h.state = 1) ORDER BY d.position LIMIT 1000";
    const CLAIM: &str = "UPDATE events_deliveries SET state = 1, token = 1, holder = 'hand', leased_until = 1, \
        claims = claims + 1 WHERE position = ?1 AND subscription = 1";
    const BEGIN: &str = "UPDATE events SET status = 'processing', \
        processed_at = coalesce(processed_at, '2026-01-01T00:00:00.000000000Z') \
        WHERE position = ?1 AND status = 'pending'";
    const SETTLE: &str = "UPDATE events_deliveries SET state = 2, attempts = 1, reason = NULL, error = NULL, marked = 0, \
        settled_at = '2026-01-01T00:00:00.000000000Z' WHERE position = ?1 AND subscription = 1 AND token = 1 AND state = 1";
    const COMPLETE: &str = "UPDATE events SET status = 'completed', error = NULL, \
        completed_at = '2026-01-01T00:00:00.000000000Z' \
        WHERE position = ?1 AND local_status IS NULL AND status = 'processing' AND NOT EXISTS \
        (SELECT 1 FROM events_deliveries d WHERE d.position = ?1 AND d.counts AND d.state <> 2)";
    let mut connection = prepared(site, path, events, "NORMAL");
    let began = Instant::now();
    let mut done = 0;
    while done < events {
        let claimed = in_transaction(&mut connection, |transaction| {
            let mut select = transaction.prepare_cached(SELECT).expect("a statement");
            let row = |row: &rusqlite::Row<'_>| {
                let texts: [String; 3] = [row.get(1)?, row.get(2)?, row.get(3)?];
                Ok((row.get::<_, i64>(0)?, texts))
            };
            let claimed: Vec<_> = select.query_map([], row).and_then(Iterator::collect).expect("rows");
            for (position, _) in &claimed {
                execute(transaction, CLAIM, [position]);
                execute(transaction, BEGIN, [position]);
            }
            claimed
        });
        for some in claimed.chunks(256) {
            in_transaction(&mut connection, |transaction| {
                for (position, _) in some {
                    execute(transaction, SETTLE, [position]);
                    execute(transaction, COMPLETE, [position]);
                }
            });
        }
        done += claimed.len() as u64;
    }
    events as f64 / began.elapsed().as_secs_f64()
}
