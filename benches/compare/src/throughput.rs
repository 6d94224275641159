//! Events per second, from the first publish to the last handler's end: goals P1, P2 and P3.

use crate::harness::{Plan, Shape, Work};
use crate::report::{Bound, Goal, Row, Section, Table};
use crate::rivals::{
    Bare, Bus, Crossbeam, Direct, Disruptor, Flume, Ours, PubSub, Qubit, Rival, Role, TokioBroadcast, Way,
};

/// What the Go original does with one subscription. Measured once, on another machine.
const ORIGINAL: f64 = 250_000.0;
const FLUME: &str = "bare flume";
const CROSSBEAM: &str = "bare crossbeam";
const TOKIO: &str = "tokio broadcast + filter";

const SHAPES: [(&str, Shape); 4] = [
    ("1 publisher, 1 worker, capacity 1,024", Shape::new(1, 1, 1_024)),
    ("1 publisher, 1 worker, capacity 65,536", Shape::new(1, 1, 65_536)),
    ("4 publishers, 2 workers, capacity 1,024", Shape::new(4, 2, 1_024)),
    ("4 publishers, 2 workers, capacity 65,536", Shape::new(4, 2, 65_536)),
];

fn contestants() -> Vec<Box<dyn Rival>> {
    vec![
        Box::new(Ours(Way::Publish)),
        Box::new(Ours(Way::RawBytes)),
        Box::new(Ours(Way::Batch)),
        Box::new(Ours(Way::Again)),
        Box::new(Bare(Flume)),
        Box::new(Bare(Crossbeam)),
        Box::new(TokioBroadcast),
        Box::new(Qubit),
        Box::new(PubSub),
        Box::new(Bus),
        Box::new(Disruptor::Spins),
        Box::new(Disruptor::Yields),
        Box::new(Direct { others: 0 }),
    ]
}

pub(crate) fn run(plan: Plan) -> Section {
    let mut section = Section {
        name: "throughput",
        title: "Throughput",
        method: "Each publisher builds events in its loop (id, time, type, a checked payload of 100 bytes); one subscription, whose \
                 handler counts. Ours also stores, routes, and counts each event as completed. 1 worker means all defaults (a \
                 pool of 10 threads), 2 workers a pool of 2. Publishers wait for room with `Overflow::Block`.",
        ..Section::default()
    };
    for (title, shape) in SHAPES {
        let table = measure(plan, title, shape);
        section.goals.extend(goals(&table, shape));
        section.tables.push(table);
    }
    section
}

fn measure(plan: Plan, title: &str, shape: Shape) -> Table {
    let rivals = contestants().into_iter().filter(|rival| rival.fits(&shape));
    let sized: Vec<(Box<dyn Rival>, u64)> = rivals
        .map(|rival| {
            let events = plan.events_per_sample(|events| rival.run(&Work::new(shape, events)));
            (rival, events)
        })
        .collect();
    let sleeps: Vec<_> = sized.iter().map(|_| std::cell::Cell::new(0.0)).collect();
    let turns: Vec<_> = sized.iter().zip(&sleeps).collect();
    let samples = plan.interleave(&turns, |((rival, events), sleeps)| {
        let work = Work::new(shape, *events);
        let rate = *events as f64 / rival.run(&work).as_secs_f64();
        sleeps.set(sleeps.get() + work.sleeps_per_event() / plan.rounds as f64);
        rate
    });
    let rows = sized.iter().zip(samples).zip(sleeps).map(|(((rival, _), samples), sleeps)| {
        Row::of(rival.as_ref(), samples).slept((shape.publishers == 1).then(|| sleeps.get()))
    });
    Table::new(title, "events/s", &[FLUME, CROSSBEAM], rows.collect())
}

fn goals(table: &Table, shape: Shape) -> Vec<Goal> {
    let id = if shape.publishers == 1 { "P1" } else { "P2" };
    let (ours, raw) = (Ours(Way::Publish).name(), Ours(Way::RawBytes).name());
    let peers = table.rows.iter().filter(|row| row.role == Role::Peer);
    let best = peers.max_by(|a, b| a.figure.median.total_cmp(&b.figure.median)).expect("peers");
    let title = &table.title;
    let mut goals = vec![
        Goal::new(id, format!("{title}: by flume"), table.ratio(ours, FLUME), Bound::AtLeast(1.5)),
        Goal::new(id, format!("{title}: raw bytes, by flume"), table.ratio(raw, FLUME), Bound::AtLeast(0.9)),
        Goal::new("P3", format!("{title}: by {}", best.name), table.ratio(ours, &best.name), Bound::AtLeast(1.0)),
        Goal::new("P3", format!("{title}: by tokio broadcast"), table.ratio(ours, TOKIO), Bound::AtLeast(4.0)),
    ];
    if shape.publishers == 1 {
        let by_original = table.figure(ours) / ORIGINAL;
        goals.push(Goal::new("P3", format!("{title}: by the original*"), by_original, Bound::AtLeast(20.0)));
        let sleeps = table.rows[0].sleeps_per_event.unwrap_or(f64::NAN);
        goals.push(Goal::new("P7", format!("{title}: sleeps per event"), sleeps, Bound::AtMost(0.01)));
    }
    goals
}
