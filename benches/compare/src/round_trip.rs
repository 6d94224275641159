//! The round trip of `publish_sync` with a trivial handler.

use std::thread;
use std::time::Instant;

use eventbroker::{Broker, Event, Payload, Source};

use crate::harness::{EVENT_TYPE, PATTERN, Plan, payload_json, quantile};
use crate::report::{Bound, Goal, Row, Section, Table};

/// The p50 and p99 of many round trips, in nanoseconds.
type Trips = (f64, f64);

/// A contestant: its name, and a function that measures a number of round trips.
type Case = (&'static str, fn(usize) -> Trips);

const CASES: [Case; 3] =
    [("publish_sync", publish_sync), ("build and publish_sync", build_and_publish_sync), (CROSSBEAM, crossbeam)];
const CROSSBEAM: &str = "crossbeam channel there and back";

pub(crate) fn run(plan: &Plan) -> Section {
    let trips = plan.pick(200_000, 500);
    let rounds = plan.interleave(&CASES, |(_, measure)| measure(trips));
    let table = |title, pick: fn(&Trips) -> f64| {
        let rows = CASES.iter().zip(&rounds);
        let rows = rows.map(|((name, _), rounds)| Row::named(*name, rounds.iter().map(pick).collect())).collect();
        Table::new(title, "ns", &[], rows)
    };
    let p50 = table("p50", |trips| trips.0);
    let figure = p50.figure("publish_sync");
    Section {
        name: "round-trip",
        title: "Round trip of publish_sync",
        method: "One thread calls, one subscription with all defaults handles. Each call is timed by itself, so each figure \
                 includes one reading of the clock. The channel's round trip uses two channels to a thread that answers.",
        tables: vec![p50, table("p99", |trips| trips.1)],
        goals: vec![Goal::new("sync", "publish_sync, trivial handler: p50 in ns", figure, Bound::AtMost(500.0))],
    }
}

fn publish_sync(trips: usize) -> Trips {
    sync(trips, false)
}

fn build_and_publish_sync(trips: usize) -> Trips {
    sync(trips, true)
}

fn sync(trips: usize, with_build: bool) -> Trips {
    let broker = Broker::builder().start().expect("a broker");
    broker
        .subscribe(PATTERN, |delivery| {
            std::hint::black_box(delivery.attempt());
        })
        .expect("a subscription");
    let payload = Payload::from_json(payload_json()).expect("valid JSON");
    let build =
        || Event::builder(Source::System, EVENT_TYPE).payload_raw(payload.clone()).build().expect("a valid event");
    collect(trips, || {
        let (started, event) = if with_build {
            let started = Instant::now();
            (started, build())
        } else {
            let event = build();
            (Instant::now(), event)
        };
        let report = broker.publish_sync(event).expect("accepted");
        let took = started.elapsed();
        assert!(report.open.is_empty(), "every delivery is terminal");
        took.as_nanos() as u64
    })
}

/// A message there and one back; also the base of goal P5.
pub(crate) fn crossbeam(trips: usize) -> Trips {
    let (there, calls) = crossbeam_channel::bounded::<u64>(1);
    let (answers, back) = crossbeam_channel::bounded::<u64>(1);
    thread::scope(|scope| {
        scope.spawn(move || calls.iter().for_each(|it| answers.send(it).expect("a caller")));
        let there = there;
        collect(trips, || {
            let started = Instant::now();
            there.send(1).expect("an answerer");
            back.recv().expect("an answer");
            started.elapsed().as_nanos() as u64
        })
    })
}

fn collect(trips: usize, mut trip: impl FnMut() -> u64) -> Trips {
    (0..trips / 10).for_each(|_| _ = trip());
    let mut taken: Vec<u64> = (0..trips).map(|_| trip()).collect();
    (quantile(&mut taken, 0.5), quantile(&mut taken, 0.99))
}
