//! Redis Streams: one server per run, one stream per turn. By hand: the same entries, appended in pipelines encoded
//! once, or read and acknowledged 1,000 at a time.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use eventbroker::provider::Provider;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::{Redis, Status};
use redis::{Connection, Value};

use super::{Contestant, Site, compare, consume, event, latency, prepare, publish, publish_buffered};
use crate::harness::Plan;
use crate::report::{Bound, Goal, Section};

const EIGHT: &str = "by hand, 8 in flight";
const LARGE: &str = "by hand, 1,000 in flight";
const LOOP: &str = "by hand, 1 loop";
const LOOP_AND_KEYS: &str = "by hand, 1 loop, a key each";

struct Streams {
    server: Server,
    client: RefCell<Connection>,
    status: Cell<Status>,
}

impl Site for Streams {
    fn fresh(&self) -> String {
        self.server.stream()
    }

    fn remove(&self, _stream: &str) {
        redis::cmd("FLUSHALL").query::<()>(&mut *self.client.borrow_mut()).expect("it is empty");
    }

    fn provider(&self, stream: &str) -> Provider {
        Redis::new(self.server.url()).stream_name(stream).max_len(0).status(self.status.get()).open().expect("it opens")
    }
}

impl Streams {
    fn connect(&self) -> Connection {
        redis::Client::open(self.server.url()).and_then(|client| client.get_connection()).expect("it connects")
    }
}

pub(crate) fn run(plan: &Plan) -> Section {
    let events = plan.pick(60_000, 2_000);
    let server = Server::start();
    let client = redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("it connects");
    let site = &Streams { server, client: RefCell::new(client), status: Cell::default() };
    let storing = [
        Contestant::by_hand("8 in flight", |stream| store_by_hand(site, stream, events, 8)),
        Contestant::by_hand("1,000 in flight", |stream| store_by_hand(site, stream, events, 1_000)),
        Contestant::ours("publish, 8 threads", |stream| publish(site, stream, events / 2, 8, 1)),
        Contestant::ours("publish, 64 threads", |stream| publish(site, stream, events, 64, 1)),
        Contestant::ours("publish_batch(64), 8 threads", |stream| publish(site, stream, events, 8, 64)),
        Contestant::ours("publish, buffered", |stream| publish_buffered(site, stream, events)),
    ];
    let storing = compare(plan, site, "storing", &[EIGHT, LARGE], &storing);
    let handling = [
        Contestant::by_hand("1 loop", |stream| consume_by_hand(site, stream, events, false)),
        Contestant::by_hand("1 loop, a key each", |stream| consume_by_hand(site, stream, events, true)),
        Contestant::ours("broker", |stream| consume(site, stream, events)),
        Contestant::ours("broker, status full", |stream| {
            site.status.set(Status::Full);
            let rate = consume(site, stream, events);
            site.status.set(Status::default());
            rate
        }),
    ];
    let handling = compare(plan, site, "handling with acknowledgement", &[LOOP, LOOP_AND_KEYS], &handling);
    let latency = latency(plan, site);
    let goal = |what: &str, figure, bound| Goal::new("P8", format!("Redis: {what}"), figure, bound);
    let goals = vec![
        goal("confirmed, 8 threads", storing.ratio("publish, 8 threads", EIGHT), Bound::AtLeast(0.7)),
        goal("publish_batch(64)", storing.ratio("publish_batch(64), 8 threads", LARGE), Bound::AtLeast(0.5)),
        goal("buffered", storing.ratio("publish, buffered", LARGE), Bound::AtLeast(0.8)),
        goal("consuming", handling.ratio("broker", LOOP), Bound::AtLeast(0.8)),
        goal("consuming, status full", handling.ratio("broker, status full", LOOP_AND_KEYS), Bound::AtLeast(0.8)),
        goal("publish to handler, p50 in ms", latency.figure("p50"), Bound::AtMost(1.0)),
        goal("publish to handler, p99 in ms", latency.figure("p99"), Bound::AtMost(5.0)),
    ];
    Section {
        name: "redis",
        title: "Redis Streams",
        method: "One local server (appendonly, fsync every second) over its Unix socket, a new stream per turn. By hand: one \
                 connection that appends the same entries in pipelines encoded once, or reads 1,000 at a time from a consumer \
                 group and acknowledges them, and in one case also writes the keys of `status: full`.",
        tables: vec![storing, handling, latency],
        goals,
    }
}

/// The fields of an entry as the provider writes them.
fn append(pipeline: &mut redis::Pipeline, stream: &str, id: &str, json: &str) {
    pipeline.cmd("XADD").arg(stream).arg("*").arg("event").arg(json).arg("id").arg(id).arg("type");
    pipeline.arg("shop.orders.create").arg("source").arg("system").arg("status").arg("pending").arg("instance_id");
    pipeline.arg("hand").ignore();
}

fn store_by_hand(site: &Streams, stream: &str, events: u64, in_flight: u64) -> f64 {
    prepare(site, stream, 0);
    let mut connection = site.connect();
    let one = event().instance_id("hand").build().expect("a valid event");
    let (id, json) = (one.id().to_string(), String::from_utf8(one.to_json()).expect("a text"));
    let mut pipeline = redis::pipe();
    (0..in_flight).for_each(|_| append(&mut pipeline, stream, &id, &json));
    let bytes = pipeline.get_packed_pipeline();
    let times = events / in_flight;
    let began = Instant::now();
    for _ in 0..times {
        use redis::ConnectionLike as _;
        connection.req_packed_commands(&bytes, 0, in_flight as usize).expect("they are stored");
    }
    (times * in_flight) as f64 / began.elapsed().as_secs_f64()
}

fn consume_by_hand(site: &Streams, stream: &str, events: u64, keys: bool) -> f64 {
    prepare(site, stream, events);
    let mut connection = site.connect();
    let began = Instant::now();
    let mut done = 0;
    while done < events {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("resolvespec-workers.all").arg("hand").arg("COUNT").arg(1_000).arg("STREAMS");
        let found: Value = read.arg(stream).arg(">").query(&mut connection).expect("entries");
        let Value::Array(streams) = found else { break };
        let mut acknowledge = redis::cmd("XACK");
        acknowledge.arg(stream).arg("resolvespec-workers.all");
        let mut written = redis::pipe();
        for entry in streams.iter().filter_map(|it| it.as_sequence()?.get(1)?.as_sequence()).flatten() {
            if let Some([Value::BulkString(name), _]) = entry.as_sequence() {
                acknowledge.arg(name);
                done += 1;
                if keys {
                    let key = format!("{stream}:status:00000000-0000-7000-8000-{done:012}");
                    written
                        .cmd("HSET")
                        .arg(&key)
                        .arg("done:resolvespec-workers.all")
                        .arg(1_700_000_000_000_u64)
                        .ignore();
                    written.cmd("PEXPIRE").arg(&key).arg(604_800_000).ignore();
                }
            }
        }
        if keys {
            written.query::<()>(&mut connection).expect("they are written");
        }
        acknowledge.query::<()>(&mut connection).expect("they are acknowledged");
    }
    done as f64 / began.elapsed().as_secs_f64()
}
