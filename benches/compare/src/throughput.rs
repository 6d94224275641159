//! Events per second, from the first publish to the end of the last handler: goals P1, P2 and P3.

use crate::harness::{Plan, Shape, Work};
use crate::race::{Runner, race};
use crate::report::{Bound, Goal, Section, Table};
use crate::rivals::{self, Ours, Rival, Role, Way};

/// The rate of the Go original with one subscription, measured once on another machine.
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

pub(crate) fn run(plan: &Plan) -> Section {
    let mut section = Section {
        name: "throughput",
        title: "Throughput",
        method: "Each publisher builds events in its loop (id, time, type, a checked payload of 100 bytes); one subscription, whose \
                 handler counts. Ours also stores and routes each event, and counts it as completed. 1 worker means all defaults (a \
                 pool of 10 threads), 2 workers a pool of 2. Publishers block on a full queue (`Overflow::Block`).",
        ..Section::default()
    };
    for (title, shape) in SHAPES {
        let table = measure(plan, title, shape);
        section.goals.extend(goals(&table, shape));
        section.tables.push(table);
    }
    section
}

fn measure(plan: &Plan, title: &str, shape: Shape) -> Table {
    let ours = [Way::Publish, Way::Publisher, Way::RawBytes, Way::Batch, Way::Again]
        .map(|way| Box::new(Ours::new(way)) as Box<dyn Rival>);
    let runners = ours.into_iter().chain(rivals::all()).filter(|rival| rival.fits(&shape));
    let runners = runners.map(|rival| Runner::new(rival, move |events| Work::new(shape, events)));
    Table::new(title, "events/s", &[FLUME, CROSSBEAM], race(plan, runners))
}

fn goals(table: &Table, shape: Shape) -> Vec<Goal> {
    let id = if shape.publishers == 1 { "P1" } else { "P2" };
    let (ours, raw) = (Ours::new(Way::Publish).name(), Ours::new(Way::RawBytes).name());
    let title = &table.title;
    let goal = |id, what: String, figure, bound| Goal::new(id, format!("{title}: {what}"), figure, bound);
    let mut goals = vec![
        goal(id, "by flume".to_owned(), table.ratio(ours, FLUME), Bound::AtLeast(1.5)),
        goal(id, "raw bytes, by flume".to_owned(), table.ratio(raw, FLUME), Bound::AtLeast(0.9)),
        goal("P3", "by tokio broadcast".to_owned(), table.ratio(ours, TOKIO), Bound::AtLeast(4.0)),
    ];
    let peers = table.rows.iter().filter(|row| row.role == Role::Peer);
    if let Some(best) = peers.max_by(|a, b| a.figure.median.total_cmp(&b.figure.median)) {
        let ratio = table.ratio(ours, &best.name);
        goals.push(goal("P3", format!("by the best peer, {}", best.name), ratio, Bound::AtLeast(1.0)));
    }
    if shape.publishers == 1 {
        let by_original = table.figure(ours) / ORIGINAL;
        goals.push(goal("P3", "by the original's 250,000/s, elsewhere".to_owned(), by_original, Bound::AtLeast(20.0)));
        goals.push(goal("P7", "sleeps per event".to_owned(), table.sleeps(ours), Bound::AtMost(0.01)));
    }
    goals
}
