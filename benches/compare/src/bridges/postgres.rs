//! PostgreSQL: one server per run, one database per turn. By hand: the same client writes and claims the same rows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use eventbroker::provider::Provider;
use eventbroker::{Broker, Confirm, Event, SubscribeOptions};
use eventbroker_conformance::postgres::Server;
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

use super::{
    Contestant, STOP, Site, compare, consume, event, latency, prepare, publish, publish_buffered, publish_with,
    rate_of, start,
};
use crate::harness::Plan;
use crate::report::{Bound, Goal, Section};

const EIGHT: &str = "by hand, 8 connections";
const BATCHES: &str = "by hand, 8 connections, 64 per commit";
const LARGE: &str = "by hand, 1 connection, 256 per commit";
const LOOP: &str = "by hand, 1 loop";
const ALONE: &str = "publish, 64 threads";

impl Site for Server {
    fn fresh(&self) -> String {
        self.database()
    }

    /// Drops the database, so that the server does no background work on it during later turns.
    fn remove(&self, address: &str) {
        let name = address.rsplit('/').next().expect("a database");
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        connect(&self.url("postgres")).batch_execute(&drop).expect("it is removed");
    }

    fn provider(&self, address: &str) -> Provider {
        Postgres::new(address).open().expect("it opens")
    }

    fn settle_down(&self, address: &str) {
        connect(address).batch_execute("CHECKPOINT").expect("it is written");
    }
}

pub(crate) fn run(plan: &Plan) -> Section {
    let events = plan.pick(40_000, 600);
    let server = &Server::durable();
    let storing = [
        Contestant::by_hand("8 connections", |url| store_by_hand(server, url, events / 4, 8, 1)),
        Contestant::by_hand("8 connections, 64 per commit", |url| store_by_hand(server, url, events, 8, 64)),
        Contestant::by_hand("1 connection, 256 per commit", |url| store_by_hand(server, url, events, 1, 256)),
        Contestant::ours("publish, 8 threads", |url| publish(server, url, events / 4, 8, 1)),
        Contestant::ours(ALONE, |url| publish(server, url, events, 64, 1)),
        Contestant::ours("the same beside another instance", |url| publish_beside_another(server, url, events)),
        Contestant::ours("publish_batch(64), 8 threads", |url| publish(server, url, events, 8, 64)),
        Contestant::ours("publish, buffered", |url| publish_buffered(server, url, events)),
    ];
    let storing = compare(plan, server, "storing, synced", &[EIGHT, BATCHES, LARGE, ALONE], &storing);
    let handling = [
        Contestant::by_hand("1 loop", |url| consume_by_hand(server, url, events, 1)),
        Contestant::by_hand("2 loops", |url| consume_by_hand(server, url, events, 2)),
        Contestant::ours("broker", |url| consume(server, url, events)),
    ];
    let handling = compare(plan, server, "handling with acknowledgement", &[LOOP], &handling);
    let latency = latency(plan, server);
    let goal = |what: &str, figure, bound| Goal::new("P8", format!("PostgreSQL: {what}"), figure, bound);
    let goals = vec![
        goal("confirmed, 8 threads", storing.ratio("publish, 8 threads", EIGHT), Bound::AtLeast(0.7)),
        goal("publish_batch(64)", storing.ratio("publish_batch(64), 8 threads", BATCHES), Bound::AtLeast(0.5)),
        goal("buffered", storing.ratio("publish, buffered", LARGE), Bound::AtLeast(0.8)),
        goal("consuming", handling.ratio("broker", LOOP), Bound::AtLeast(0.7)),
        goal(
            "with notifications by without",
            storing.ratio("the same beside another instance", ALONE),
            Bound::AtLeast(0.9),
        ),
        goal("publish to handler, p50 in ms", latency.figure("p50"), Bound::AtMost(5.0)),
    ];
    Section {
        name: "postgres",
        title: "PostgreSQL",
        method: "One local server, a new database per turn. By hand: threads with a connection each that write the same rows, or \
                 claim 1,000 at a time with the same functions and settle 256 at a time. The other instance has a subscription \
                 to other events, so that every commit is notified.",
        tables: vec![storing, handling, latency],
        goals,
    }
}

fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).expect("it connects")
}

/// Publishes beside another live instance, for which each commit is notified.
fn publish_beside_another(server: &Server, url: &str, events: u64) -> f64 {
    prepare(server, url, 0);
    let brokers: [Broker; 2] = [(); 2].map(|()| start(server, url, Confirm::Confirmed));
    brokers[1].subscribe_with(SubscribeOptions::new("other.**").name("other"), |_| ()).expect("a subscription");
    let rate = publish_with(&brokers[0], events, 64, 1);
    brokers.iter().for_each(|broker| drop(broker.stop(STOP)));
    rate
}

/// Writes the same rows, from threads with a connection each.
fn store_by_hand(server: &Server, url: &str, events: u64, threads: usize, batch: u64) -> f64 {
    const INSERT: &str = "INSERT INTO events \
        (id, source, type, payload, instance_id, schema, entity, operation, created_at, origin) \
        SELECT i.id, 'system', i.type, i.payload::json, 'hand', 'shop', 'orders', 'create', i.created_at, 'by hand' \
        FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS i(id, type, payload, created_at)";
    prepare(server, url, 0);
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

/// Claims and settles with the same functions and sizes, in bare loops.
fn consume_by_hand(server: &Server, url: &str, events: u64, loops: usize) -> f64 {
    prepare(server, url, events);
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

/// Claims and settles until no delivery is ready. Returns their number.
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
