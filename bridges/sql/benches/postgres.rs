//! What the PostgreSQL provider reaches, beside the same rows written and claimed by hand with the same client in the same run: medians
//! of several rounds, in each of which both take their turn in a new database, and their ratios. It starts a server of its own.
//!
//! `cargo bench -p eventbroker-sql --features postgres --bench postgres [-- --quick]`

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Event, EventBuilder, Source, SubscribeOptions};
use eventbroker_conformance::postgres::Server;
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

const PAYLOAD: &str =
    r#"{"customer":42,"items":[{"sku":"A-1","count":2},{"sku":"B-7","count":1}],"total":"99.90","note":"x"}"#;
const STOP: Duration = Duration::from_secs(30);

/// A name, and what gives a rate in an empty database.
type Candidate<'a> = (&'a str, &'a dyn Fn(&str) -> f64);

fn main() {
    let (events, rounds) = if env::args().any(|it| it == "--quick") { (10_000, 3) } else { (50_000, 5) };
    let server = Server::start();

    println!("storing, each commit synced before it is accepted");
    let by_hand: Candidate<'_> = ("by hand, 8 connections, 1 per commit", &|url| store_by_hand(url, events / 4, 8, 1));
    compare(&server, rounds, &[by_hand], ("publish, 8 threads", &|url| publish(url, events / 4, 8, 1)));
    let by_hand: [Candidate<'_>; 2] = [
        ("by hand, 64 connections, 1 per commit", &|url| store_by_hand(url, events, 64, 1)),
        ("by hand, 1 connection, 64 per commit", &|url| store_by_hand(url, events, 1, 64)),
    ];
    compare(&server, rounds, &by_hand, ("publish, 64 threads", &|url| publish(url, events, 64, 1)));
    let by_hand: Candidate<'_> = ("by hand, 8 connections, 64 per commit", &|url| store_by_hand(url, events, 8, 64));
    compare(&server, rounds, &[by_hand], ("publish_batch(64), 8 threads", &|url| publish(url, events, 8, 64)));

    println!("handling with acknowledgement, by hand 1,000 per claim and 256 per verdict");
    let by_hand: [Candidate<'_>; 2] = [
        ("by hand, 1 loop", &|url| consume_by_hand(url, events, 1)),
        ("by hand, 2 loops", &|url| consume_by_hand(url, events, 2)),
    ];
    compare(&server, rounds, &by_hand, ("broker", &|url| consume(url, events)));

    let (p50, p99) = latency(&server.database());
    println!("publish to handler inside one process, 1,000 events/s: p50 {p50:?}, p99 {p99:?}");
}

/// Prints the medians, and at the last the ratio to each of the others.
fn compare(server: &Server, rounds: usize, by_hand: &[Candidate<'_>], broker: Candidate<'_>) {
    let candidates: Vec<_> = by_hand.iter().chain([&broker]).collect();
    let mut rates = vec![Vec::new(); candidates.len()];
    for _ in 0..rounds {
        for ((_, measure), rates) in candidates.iter().zip(&mut rates) {
            let url = server.database();
            rates.push(measure(&url));
            remove(server, &url);
        }
    }
    let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    let ours = medians[by_hand.len()];
    for (index, ((name, _), rate)) in candidates.iter().zip(&medians).enumerate() {
        let ratios = medians[..by_hand.len()].iter().map(|by_hand| format!("  {:.2} x", ours / by_hand));
        let ratios: String = ratios.filter(|_| index == by_hand.len()).collect();
        println!("  {name:<38} {rate:>9.0}/s{ratios}");
    }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).expect("it connects")
}

/// So that the server does not go on with a database that is not measured any more.
fn remove(server: &Server, url: &str) {
    let name = url.rsplit('/').next().expect("a database");
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    connect(&server.url("postgres")).batch_execute(&drop).expect("it is removed");
}

fn event() -> EventBuilder {
    Event::builder(Source::System, "shop.orders.create").payload_json(PAYLOAD)
}

fn options() -> SubscribeOptions {
    SubscribeOptions::new("shop.**").name("all")
}

fn start(url: &str) -> Broker {
    let provider = Postgres::new(url).open().expect("it opens");
    Broker::builder().buffer_size(10_000).provider(provider).start().expect("it starts")
}

/// The tables with so many events, and a subscription that nobody serves, so that each event has a delivery.
fn prepare(url: &str, events: u64) {
    let broker = start(url);
    let id = broker.subscribe_with(options(), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    (0..events / 200).for_each(|_| fill(&broker, 200));
    broker.stop(STOP);
    // What was written until now is not written during what comes.
    connect(url).batch_execute("CHECKPOINT").expect("it is written");
}

fn fill(broker: &Broker, events: u64) {
    let accepted = broker.publish_batch((0..events).map(|_| event().build().expect("a valid event")));
    accepted.into_iter().for_each(|it| drop(it.expect("it is accepted")));
}

/// Does something so often on each of so many threads, each of which has one of `tools`; returns how many events that were a second.
fn rate_of<T: Send>(tools: Vec<T>, events: u64, batch: u64, work: impl Fn(&mut T) + Sync) -> f64 {
    let times = events / tools.len() as u64 / batch;
    let done = times * tools.len() as u64 * batch;
    let began = Instant::now();
    thread::scope(|scope| {
        for mut tool in tools {
            let work = &work;
            scope.spawn(move || (0..times).for_each(|_| work(&mut tool)));
        }
    });
    done as f64 / began.elapsed().as_secs_f64()
}

fn publish(url: &str, events: u64, threads: usize, batch: u64) -> f64 {
    prepare(url, 0);
    let broker = start(url);
    let rate = rate_of(vec![(); threads], events, batch, |()| {
        if batch == 1 {
            broker.publish(event().build().expect("a valid event")).expect("it is accepted");
        } else {
            fill(&broker, batch);
        }
    });
    broker.stop(STOP);
    rate
}

/// The same rows, by threads that have a connection each and do nothing else.
fn store_by_hand(url: &str, events: u64, threads: usize, batch: u64) -> f64 {
    const INSERT: &str = "INSERT INTO events \
        (id, source, type, payload, instance_id, schema, entity, operation, created_at, origin) \
        SELECT i.id, 'system', i.type, i.payload::json, 'hand', 'shop', 'orders', 'create', i.created_at, 'by hand' \
        FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS i(id, type, payload, created_at)";
    prepare(url, 0);
    let connection = || {
        let mut client = connect(url);
        let insert = client.prepare(INSERT).expect("a statement");
        (client, insert)
    };
    rate_of((0..threads).map(|_| connection()).collect(), events, batch, |(client, insert)| {
        let new: Vec<Event> = (0..batch).map(|_| event().build().expect("a valid event")).collect();
        let ids: Vec<String> = new.iter().map(|event| event.id().to_string()).collect();
        let types: Vec<&str> = new.iter().map(|event| event.event_type().as_str()).collect();
        let payloads: Vec<&str> = new.iter().map(|event| event.payload().as_str()).collect();
        let created: Vec<_> = new.iter().map(Event::created_at).collect();
        client.execute(&*insert, &[&ids, &types, &payloads, &created]).expect("they are stored");
    })
}

fn consume(url: &str, events: u64) -> f64 {
    prepare(url, events);
    let broker = start(url);
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

/// The same functions in the same sizes, by loops that do nothing else.
fn consume_by_hand(url: &str, events: u64, loops: usize) -> f64 {
    prepare(url, events);
    let clients: Vec<Client> = (0..loops).map(|_| connect(url)).collect();
    let done = AtomicU64::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for (number, mut client) in clients.into_iter().enumerate() {
            let done = &done;
            scope.spawn(move || {
                done.fetch_add(claim_and_settle(&mut client, &format!("hand {number}")), Ordering::Relaxed)
            });
        }
    });
    assert_eq!(done.into_inner(), events, "each was claimed once");
    events as f64 / began.elapsed().as_secs_f64()
}

/// Until nothing is ready any more. Returns how many it was.
fn claim_and_settle(client: &mut Client, holder: &str) -> u64 {
    const CLAIM: &str = "SELECT c.token, c.subscription, c.position, e.id, e.type, e.payload::text \
        FROM events_claim($1, interval '30 s', 10000, '{1}', '{1000}', $2) c CROSS JOIN LATERAL (SELECT (c.event).*) e";
    const SETTLE: &str = "SELECT * FROM events_settle($1, $2, $3, $4, $5, $6, $7, $7, $7)";
    client.batch_execute("SET synchronous_commit = off").expect("a setting");
    let claim = client.prepare(CLAIM).expect("a statement");
    let settle = client.prepare(SETTLE).expect("a statement");
    let mut done = 0;
    loop {
        let rows = client.query(&claim, &[&holder, &(done as i64)]).expect("a claim");
        if rows.is_empty() {
            return done;
        }
        let claimed = rows.iter().map(|row| {
            let numbers: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
            let texts: [String; 3] = [row.get(3), row.get(4), row.get(5)];
            (numbers, texts)
        });
        let claimed: Vec<_> = claimed.collect();
        for some in claimed.chunks(256) {
            let column = |index: usize| some.iter().map(|(numbers, _)| numbers[index]).collect::<Vec<i64>>();
            let (states, attempts) = (vec![2_i32; some.len()], vec![1_i32; some.len()]);
            let none = vec![None::<&str>; some.len()];
            let lost = client
                .query(&settle, &[&holder, &column(2), &column(1), &column(0), &states, &attempts, &none])
                .expect("a verdict");
            assert!(lost.is_empty(), "no lease is lost");
        }
        done += claimed.len() as u64;
    }
}

/// Eight threads publish, each when it is its turn, whatever became of the events before: counted from that moment.
fn latency(url: &str) -> (Duration, Duration) {
    const EVENTS: i64 = 5_000;
    const THREADS: i64 = 8;
    let broker = start(url);
    let (sender, calls) = channel();
    let handler = broker.subscribe_with(options(), move |delivery| {
        // Nobody listens any more at the end.
        let _ = sender.send((delivery.event().user_id(), Instant::now()));
    });
    handler.expect("a subscription");
    let began = Instant::now() + Duration::from_millis(100);
    let turn = |number: i64| began + Duration::from_millis(number as u64);
    thread::scope(|scope| {
        for first in 1..=THREADS {
            let broker = &broker;
            scope.spawn(move || {
                for number in (first..=EVENTS).step_by(THREADS as usize) {
                    thread::sleep(turn(number).saturating_duration_since(Instant::now()));
                    let event = event().user_id(number).build().expect("a valid event");
                    broker.publish(event).expect("it is accepted");
                }
            });
        }
    });
    let calls = calls.iter().take(EVENTS as usize);
    let mut took: Vec<Duration> =
        calls.map(|(number, at)| at.saturating_duration_since(turn(number.expect("a number")))).collect();
    broker.stop(STOP);
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}
