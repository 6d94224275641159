//! What a table of many rows costs: the same questions to one of a thousand events and to one of ten million, in the same run. Needs some
//! 10 GB in the folder for temporary files.
//!
//! `cargo bench -p eventbroker-sql --features postgres --bench large [-- ROWS] [sqlite|postgres]`

#[cfg(feature = "postgres")]
mod postgres;
mod sqlite;

use std::env;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::Provider;
use eventbroker::query::{Filter, Order};
use eventbroker::{Broker, Event, Source, Status, SubscribeOptions};

const STOP: Duration = Duration::from_secs(30);
/// How often each question is asked.
const TIMES: usize = 200;
/// Rows of one statement while a table is filled.
const STEP: u64 = 500_000;
/// Nothing of the tables is old enough to go.
const RETENTION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A back end with so many events that were handled long ago, but for one of 10,000, which failed.
trait Table {
    fn rows(&self) -> u64;
    fn provider(&self) -> Provider;
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let rows = arguments.iter().find_map(|it| it.parse().ok()).unwrap_or(10_000_000);
    let wants = |name: &str| {
        let mut names = arguments.iter().filter(|it| ["sqlite", "postgres"].contains(&it.as_str())).peekable();
        names.peek().is_none() || names.any(|it| it == name)
    };
    if wants("sqlite") {
        report("SQLite", [1_000, rows].map(sqlite::filled));
    }
    #[cfg(feature = "postgres")]
    if wants("postgres") {
        report("PostgreSQL", [1_000, rows].map(postgres::filled));
    }
}

fn report<T: Table>(name: &str, tables: [T; 2]) {
    let [small, large] = &tables;
    println!(
        "{:<44}{:>14}{:>14}",
        format!("{name}: p50 / p99"),
        format!("{} rows", small.rows()),
        format!("{} rows", large.rows())
    );
    let questions = ask(small).into_iter().zip(ask(large));
    for ((name, small), (_, large)) in questions {
        println!("{name:<44}{:>14}{:>14}", text(small), text(large));
    }
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

fn ask(table: &dyn Table) -> Vec<(&'static str, Quantiles)> {
    let broker = start(table.provider());
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
    let in_the_middle = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + table.rows() / 200);
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

fn start(provider: Provider) -> Broker {
    Broker::builder().provider(provider).start().expect("it starts")
}

/// The tables, with a subscription that nobody serves.
fn prepare(provider: Provider) {
    let broker = start(provider);
    let id = broker.subscribe_with(SubscribeOptions::new("shop.**").name("all"), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    broker.stop(STOP);
}

/// Fills in steps.
fn steps(rows: u64) -> impl Iterator<Item = (i64, i64)> {
    (0..rows.div_ceil(STEP)).map(move |step| ((step * STEP) as i64, rows.min((step + 1) * STEP) as i64))
}
