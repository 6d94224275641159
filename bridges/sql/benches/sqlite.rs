//! What the SQLite provider reaches, beside the same rows written and claimed by hand in the same run: rates, and their ratios.
//!
//! `cargo bench -p eventbroker-sql --bench sqlite [-- --quick]`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use eventbroker::{Broker, Event, Source, SubscribeOptions};
use eventbroker_sql::Sqlite;
use rusqlite::{Connection, Params, Transaction, TransactionBehavior};

const PAYLOAD: &str =
    r#"{"customer":42,"items":[{"sku":"A-1","count":2},{"sku":"B-7","count":1}],"total":"99.90","note":"x"}"#;
const STOP: Duration = Duration::from_secs(30);

fn main() {
    let events = if env::args().any(|it| it == "--quick") { 20_000 } else { 100_000 };
    let folder = env::temp_dir().join(format!("eventbroker-sql-bench-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = |name: &str| folder.join(name);

    let by_hand = store_by_hand(&path("hand.db"), events, 64);
    let many = publish(&path("many.db"), events, 64, 1);
    let batches = publish(&path("batches.db"), events, 8, 64);
    let few = publish(&path("few.db"), events / 4, 8, 1);
    println!("storing, each event synced before it is accepted");
    println!("  by hand, 64 per transaction   {by_hand:>9.0}/s");
    println!("  publish, 64 threads           {many:>9.0}/s  {:.2} x", many / by_hand);
    println!("  publish_batch(64), 8 threads  {batches:>9.0}/s  {:.2} x", batches / by_hand);
    println!("  publish, 8 threads            {few:>9.0}/s");

    let by_hand = consume_by_hand(&path("claim.db"), events);
    let consumed = consume(&path("consume.db"), events);
    println!("handling with acknowledgement");
    println!("  by hand, 1,000 per claim, 256 per verdict  {by_hand:>9.0}/s");
    println!("  broker                                     {consumed:>9.0}/s  {:.2} x", consumed / by_hand);

    let (p50, p99) = latency(&path("latency.db"));
    println!("publish to handler inside one process, 1,000 events/s: p50 {p50:?}, p99 {p99:?}");
    // It is in the folder for temporary files.
    let _ = fs::remove_dir_all(&folder);
}

fn event() -> Event {
    Event::builder(Source::System, "shop.orders.create").payload_json(PAYLOAD).build().expect("a valid event")
}

fn options() -> SubscribeOptions {
    SubscribeOptions::new("shop.**").name("all")
}

/// A broker with one subscription that nobody serves, so that each event has a delivery.
fn start(path: &Path) -> Broker {
    let provider = Sqlite::new(path).open().expect("it opens");
    let broker = Broker::builder().buffer_size(10_000).provider(provider).start().expect("it starts");
    let id = broker.subscribe_with(options(), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    broker
}

fn publish(path: &Path, events: u64, threads: u64, batch: u64) -> f64 {
    let broker = start(path);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..events / threads / batch {
                    if batch == 1 {
                        broker.publish(event()).expect("it is accepted");
                    } else {
                        fill(&broker, batch);
                    }
                }
            });
        }
    });
    let rate = (events / threads / batch * threads * batch) as f64 / began.elapsed().as_secs_f64();
    broker.stop(STOP);
    rate
}

fn fill(broker: &Broker, events: u64) {
    let accepted = broker.publish_batch((0..events).map(|_| event()));
    accepted.into_iter().for_each(|it| drop(it.expect("it is accepted")));
}

/// The tables of a provider with a subscription and so many events.
fn prepared(path: &Path, events: u64, synchronous: &str) -> Connection {
    let broker = start(path);
    (0..events / 200).for_each(|_| fill(&broker, 200));
    broker.stop(STOP);
    drop(broker);
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

fn store_by_hand(path: &Path, events: u64, batch: u64) -> f64 {
    const INSERT: &str = "INSERT INTO events (id, source, type, payload, instance_id, schema, entity, operation, created_at) \
        VALUES (?1, 'system', ?2, ?3, 'hand', 'shop', 'orders', 'create', '2026-01-01T00:00:00.000000000Z')";
    let mut connection = prepared(path, 0, "FULL");
    let began = Instant::now();
    for _ in 0..events / batch {
        in_transaction(&mut connection, |transaction| {
            for _ in 0..batch {
                let new = event();
                let values = (new.id().to_string(), new.event_type().as_str(), new.payload().as_str());
                execute(transaction, INSERT, values);
            }
        });
    }
    events as f64 / began.elapsed().as_secs_f64()
}

fn consume(path: &Path, events: u64) -> f64 {
    drop(prepared(path, events, "NORMAL"));
    let provider = Sqlite::new(path).open().expect("it opens");
    let broker = Broker::builder().buffer_size(10_000).provider(provider).start().expect("it starts");
    let handled = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&handled);
    let began = Instant::now();
    broker.subscribe_with(options(), move |_| _ = counted.fetch_add(1, Ordering::Relaxed)).expect("a subscription");
    let leases = || broker.stats().bridge.map_or(0, |bridge| bridge.leases);
    while handled.load(Ordering::Relaxed) < events || leases() > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let rate = events as f64 / began.elapsed().as_secs_f64();
    broker.stop(STOP);
    rate
}

/// The same changes in the same sizes, by a loop that does nothing else.
fn consume_by_hand(path: &Path, events: u64) -> f64 {
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
    let mut connection = prepared(path, events, "NORMAL");
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

fn latency(path: &Path) -> (Duration, Duration) {
    let provider = Sqlite::new(path).open().expect("it opens");
    let broker = Broker::builder().provider(provider).start().expect("it starts");
    let (sender, calls) = channel();
    // Nobody listens any more at the end.
    broker.subscribe_with(options(), move |_| _ = sender.send(Instant::now())).expect("a subscription");
    let mut took: Vec<Duration> = (0..2_000)
        .map(|_| {
            let began = Instant::now();
            broker.publish(event()).expect("it is accepted");
            let called = calls.recv().expect("it is called");
            thread::sleep(Duration::from_millis(1).saturating_sub(began.elapsed()));
            called - began
        })
        .collect();
    broker.stop(STOP);
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}
