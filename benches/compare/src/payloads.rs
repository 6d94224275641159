//! The cost of validating a payload, and whether simd-json or rayon would reduce it. The broker uses neither; the table
//! shows what they would have to gain.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Event, Overflow, Payload, Source, SubscribeOptions};
use rayon::prelude::*;
use serde_json::value::RawValue;

use crate::harness::{EVENT_TYPE, PATTERN, Plan};
use crate::report::{Bound, Goal, Row, Section, Table};

const SIZES: [(&str, usize); 3] = [("100 bytes", 100), ("4 KiB", 4 << 10), ("1 MiB", 1 << 20)];
const CHECKED: &str = "serde_json, checked";
const KEPT: &str = "serde_json, checked and copied";
const OURS: &str = "Payload::from_json";
const SIMD: &str = "simd-json, into a copy's tape";

/// Validates JSON text.
type Check = (&'static str, fn(&str));

const CHECKS: [Check; 4] = [(CHECKED, check), (KEPT, check_and_copy), (OURS, from_json), (SIMD, simd)];

fn check(text: &str) {
    black_box(serde_json::from_slice::<&RawValue>(text.as_bytes()).expect("valid JSON"));
}

fn check_and_copy(text: &str) {
    let value = serde_json::from_slice::<&RawValue>(text.as_bytes()).expect("valid JSON");
    black_box(Arc::<str>::from(value.get()));
}

fn from_json(text: &str) {
    black_box(Payload::from_json(text).expect("valid JSON"));
}

/// simd-json writes into its input, so it needs a copy; the copy is kept, as ours is.
fn simd(text: &str) {
    let mut copy = text.as_bytes().to_vec();
    black_box(simd_json::to_tape(&mut copy).expect("valid JSON"));
    black_box(copy);
}

/// JSON of this length: records of orders.
fn json(bytes: usize) -> String {
    let mut text = String::from("[");
    while text.len() + 80 < bytes {
        let number = text.len();
        text.push_str(&format!("{{\"id\":{number},\"name\":\"Ada Lovelace\",\"total\":{number}.5,\"open\":true}},"));
    }
    let rest = bytes.saturating_sub(text.len() + 3);
    text.push_str(&format!("\"{}\"]", "x".repeat(rest)));
    text
}

pub(crate) fn run(plan: &Plan) -> Section {
    let mut tables: Vec<Table> = SIZES.iter().map(|(name, bytes)| checks(plan, name, *bytes)).collect();
    let goals = tables.iter().map(|table| {
        let what = format!("{}, by {KEPT}", table.title);
        Goal::new("check", what, table.ratio(OURS, KEPT), Bound::AtMost(1.2))
    });
    let goals = goals.collect();
    tables.push(batches(plan));
    Section {
        name: "payloads",
        title: "Checking payloads",
        method: "The same JSON text repeatedly: checked, checked and copied as a payload must be, and parsed into the tape of \
                 simd-json, its cheapest form. Then batches of 1,000 events with 1 KiB of raw JSON each, published by one thread to one \
                 subscription: checked by that thread, or by rayon's pool of a thread per core.",
        goals,
        tables,
    }
}

fn checks(plan: &Plan, name: &str, bytes: usize) -> Table {
    let text = json(bytes);
    let times = plan.events_per_sample(|times| repeat(times, || check(&text)));
    let rounds = plan
        .interleave(&CHECKS, |(_, check)| repeat(times, || check(black_box(&text))).as_nanos() as f64 / times as f64);
    let rows =
        CHECKS.iter().zip(rounds).map(|((name, _), rounds)| Row::named(*name, rounds.into_iter().collect())).collect();
    Table::new(name, "ns per payload", &[CHECKED, KEPT], rows)
}

fn repeat(times: u64, mut run: impl FnMut()) -> Duration {
    let started = Instant::now();
    (0..times).for_each(|_| run());
    started.elapsed()
}

/// Builds a batch of events from raw JSON.
type Make = (&'static str, fn(&[String]) -> Vec<Event>);

const ONE_THREAD: &str = "checked by the publisher";
const MAKES: [Make; 2] = [
    (ONE_THREAD, |texts| texts.iter().map(|text| event(text)).collect()),
    ("checked by rayon", |texts| texts.par_iter().map(|text| event(text)).collect()),
];

fn event(text: &str) -> Event {
    let payload = Payload::from_json(text).expect("valid JSON");
    Event::builder(Source::System, EVENT_TYPE).payload_raw(payload).build().expect("a valid event")
}

fn batches(plan: &Plan) -> Table {
    let texts: Vec<String> = (0..1_000).map(|_| json(1 << 10)).collect();
    let broker = Broker::builder().start().expect("a broker");
    let options = SubscribeOptions::new(PATTERN).overflow(Overflow::Block(Duration::from_secs(60)));
    broker
        .subscribe_with(options, |delivery| {
            black_box(delivery.attempt());
        })
        .expect("a subscription");
    let publish = |make: fn(&[String]) -> Vec<Event>| {
        let accepted = broker.publish_batch(make(&texts));
        assert!(accepted.iter().all(Result::is_ok), "there is room for all");
    };
    let times = plan.events_per_sample(|times| repeat(times.div_ceil(1_000), || publish(MAKES[0].1))).div_ceil(1_000);
    let rounds =
        plan.interleave(&MAKES, |(_, make)| (times * 1_000) as f64 / repeat(times, || publish(*make)).as_secs_f64());
    let rows =
        MAKES.iter().zip(rounds).map(|((name, _), rounds)| Row::named(*name, rounds.into_iter().collect())).collect();
    Table::new("batches of 1,000, 1 KiB each", "events/s", &[ONE_THREAD], rows)
}
