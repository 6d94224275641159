//! What a table of many rows costs: the same questions to one of a thousand events and to one of ten million, in the same run.
//!
//! `cargo bench -p eventbroker-sql --bench large [-- ROWS]`

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, process};

use eventbroker::query::{Filter, Order};
use eventbroker::{Broker, Event, Source, Status, SubscribeOptions};
use eventbroker_sql::Sqlite;
use rusqlite::{Connection, params};

const STOP: Duration = Duration::from_secs(30);
/// How often each question is asked.
const TIMES: usize = 200;
/// Rows of one transaction while a table is filled.
const STEP: u64 = 500_000;

fn main() {
    let rows = env::args().skip(1).find_map(|it| it.parse().ok()).unwrap_or(10_000_000);
    let folder = env::temp_dir().join(format!("eventbroker-sql-large-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let [small, large] = [1_000, rows].map(|rows| Table::fill(folder.join(format!("{rows}.db")), rows));
    println!("{:<44}{:>14}{:>14}", "p50 / p99 of each", format!("{} rows", small.rows), format!("{} rows", large.rows));
    let questions = small.ask().into_iter().zip(large.ask());
    for ((name, small), (_, large)) in questions {
        println!("{name:<44}{:>14}{:>14}", text(small), text(large));
    }
    // It is in the folder for temporary files.
    let _ = fs::remove_dir_all(&folder);
}

/// Half of the time, and 99 of 100 times, at most so long.
type Quantiles = (Duration, Duration);

fn text((half, most): Quantiles) -> String {
    format!("{:.2}/{:.2} ms", half.as_secs_f64() * 1e3, most.as_secs_f64() * 1e3)
}

fn measure(mut ask: impl FnMut()) -> Quantiles {
    let mut times: Vec<Duration> = (0..TIMES)
        .map(|_| {
            let began = Instant::now();
            ask();
            began.elapsed()
        })
        .collect();
    times.sort();
    (times[TIMES / 2], times[TIMES * 99 / 100])
}

struct Table {
    path: PathBuf,
    rows: u64,
}

impl Table {
    /// Events that were handled long ago, but for one of 10,000, which failed.
    fn fill(path: PathBuf, rows: u64) -> Self {
        let broker = start(&path);
        let id = broker.subscribe_with(SubscribeOptions::new("shop.**").name("all"), |_| ()).expect("a subscription");
        broker.unsubscribe(id).expect("it is there");
        broker.stop(STOP);
        let sql = Connection::open(&path).expect("it opens");
        let trigger: String = sql
            .query_row("SELECT sql FROM sqlite_master WHERE type = 'trigger'", [], |row| row.get(0))
            .expect("the trigger that makes deliveries");
        sql.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; DROP TRIGGER events_deliver;")
            .expect("it is dropped");
        let mut first = 0;
        while first < rows {
            let end = rows.min(first + STEP);
            let number = "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)";
            let failed = "i % 10000 = 9999";
            sql.execute(
                &format!(
                    "{number} INSERT INTO events (id, source, type, status, payload, user_id, instance_id, schema, entity, \
                     operation, created_at, completed_at, key) SELECT printf('01900000-0000-7000-8000-%012d', i), 'database', \
                     'shop.entity' || (i % 50) || '.create', CASE WHEN {failed} THEN 'failed' ELSE 'completed' END, \
                     '{{\"total\":' || i || '}}', i % 10000, 'host', 'shop', 'entity' || (i % 50), 'create', \
                     strftime('%Y-%m-%dT%H:%M:%S.000000000Z', 1700000000 + i / 100, 'unixepoch'), \
                     strftime('%Y-%m-%dT%H:%M:%S.000000000Z', 'now'), 'k' || (i % 100000) FROM n"
                ),
                params![first as i64, end as i64],
            )
            .expect("events");
            sql.execute(
                &format!(
                    "{number} INSERT INTO events_deliveries (position, subscription, state, key, attempts, settled_at) \
                     SELECT i + 1, 1, CASE WHEN {failed} THEN 3 ELSE 2 END, 'k' || (i % 100000), 1, '2026' FROM n"
                ),
                params![first as i64, end as i64],
            )
            .expect("deliveries");
            first = end;
        }
        sql.execute_batch(&trigger).expect("it is made again");
        Self { path, rows }
    }

    fn ask(&self) -> Vec<(&'static str, Quantiles)> {
        let broker = start(&self.path);
        let (sender, handled) = channel();
        broker
            .subscribe_with(SubscribeOptions::new("shop.**").name("all"), move |_| {
                // Nobody listens any more at the end.
                let _ = sender.send(());
            })
            .expect("a subscription");
        let publish = measure(|| {
            let event = Event::builder(Source::System, "shop.entity1.create").build().expect("a valid event");
            broker.publish(event).expect("it is accepted");
            handled.recv_timeout(STOP).expect("it is handled");
        });
        let page = |filter: Filter| measure(|| _ = broker.list(&filter).expect("it answers"));
        let any = || Filter { order: Order::NewestFirst, ..Filter::default() };
        let in_the_middle = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + self.rows / 200);
        let answers = vec![
            ("publish, claim, handle, settle", publish),
            ("page: the newest", page(any())),
            ("page: of an entity", page(Filter { entity: Some("entity7".to_owned()), ..any() })),
            ("page: of an operation", page(Filter { operation: Some("create".to_owned()), ..any() })),
            ("page: of a user", page(Filter { user_id: Some(77), ..any() })),
            ("page: failed", page(Filter { status: Some(Status::Failed), ..any() })),
            ("page: of an entity and a time", {
                page(Filter { entity: Some("entity7".to_owned()), created_to: Some(in_the_middle), ..any() })
            }),
            ("lag of every subscription", measure(|| _ = broker.back_end_stats().expect("it answers"))),
        ];
        broker.stop(STOP);
        answers
    }
}

fn start(path: &Path) -> Broker {
    // Nothing of the tables is old enough to go.
    let sqlite = Sqlite::new(path).retention(Duration::from_secs(100 * 365 * 24 * 3600));
    Broker::builder().provider(sqlite.open().expect("it opens")).start().expect("it starts")
}
