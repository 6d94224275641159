//! Latency from publish to handler, at rates below saturation: goal P5.

use std::time::Duration;

use crate::harness::{Plan, Samples, Shape, Work, quantile};
use crate::report::{Bound, Goal, Row, Section, Table};
use crate::rivals::{Bare, Crossbeam, Flume, Ours, Rival, TokioBroadcast, Way};
use crate::round_trip;

const SHAPE: Shape = Shape::new(1, 1, 1_024);
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
/// The minimum number of rounds, for a stable p90 at 1,000 events/s.
const ROUNDS: usize = 9;

fn contestants() -> [Box<dyn Rival>; 4] {
    [
        Box::new(Ours::new(Way::Publish)),
        Box::new(Bare(Flume)),
        Box::new(Bare(Crossbeam)),
        Box::new(TokioBroadcast::default()),
    ]
}

pub(crate) fn run(plan: &Plan) -> Section {
    let plan = &Plan { rounds: plan.pick(plan.rounds.max(ROUNDS), plan.rounds), ..plan.clone() };
    let slow = measure(plan, "1,000", Duration::from_millis(1), plan.pick(500, 10));
    let quick = measure(plan, "100,000", Duration::from_micros(10), plan.pick(40_000, 200));
    let trips: Samples = (0..plan.rounds).map(|_| round_trip::crossbeam(plan.pick(50_000, 200)).0).collect();
    let trips = Row::named("crossbeam channel there and back", trips);

    let ours = Ours::new(Way::Publish).name();
    let by_trip = quick[0].figure(ours) / trips.figure.median;
    let by = |base| slow[1].ratio(ours, base);
    let goals = vec![
        Goal::new("P5", "100,000 events/s: p50 by a crossbeam round trip", by_trip, Bound::AtMost(8.0)),
        Goal::new("P5", "1,000 events/s: p90 by bare crossbeam", by("bare crossbeam"), Bound::AtMost(2.0)),
        Goal::new("P5", "1,000 events/s: p90 by bare flume", by("bare flume"), Bound::AtMost(2.0)),
    ];
    let mut tables: Vec<Table> = slow.into_iter().chain(quick).collect();
    tables.push(Table::new("round trip, p50", "ns", &[], vec![trips]));
    Section {
        name: "latency",
        title: "Latency from publish to handler",
        method: "1 publisher, which sleeps between events at 1,000 events/s and spins at 100,000; one subscription. From the time in \
                 the event, set when it is built, to the clock in the handler. At least 9 rounds.",
        tables,
        goals,
    }
}

/// Measures at one rate. Returns one table per quantile.
fn measure(plan: &Plan, rate: &str, pace: Duration, events: u64) -> Vec<Table> {
    let contestants = contestants();
    let rounds = plan.interleave(&contestants, |rival| {
        let work = Work::new(SHAPE, events).paced(pace);
        rival.run(&work);
        let mut latencies = work.tally().latencies();
        QUANTILES.map(|(_, share)| quantile(&mut latencies, share))
    });
    let table = |n: usize, name: &str| {
        let rows = contestants.iter().zip(&rounds);
        let rows = rows.map(|(rival, rounds)| Row::of(rival.as_ref(), rounds.iter().map(|it| it[n]).collect()));
        Table::new(format!("at {rate} events/s, {name}"), "ns", &["bare crossbeam"], rows.collect())
    };
    QUANTILES.iter().enumerate().map(|(n, (name, _))| table(n, name)).collect()
}
