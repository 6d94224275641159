//! The cost of counting and timing events by source and type.

use std::time::Duration;

use crate::harness::{Plan, Shape, Work};
use crate::race::{Runner, race};
use crate::report::{Bound, Goal, Section, Table};
use crate::rivals::{Ours, Way};

const OFF: &str = "switched off";
const ON: &str = "counted by type (the default)";
/// Short turns, because the machine drifts by more than the difference measured here.
const TURNS: usize = 61;
const SAMPLE: Duration = Duration::from_millis(200);

pub(crate) fn run(plan: &Plan) -> Section {
    let plan = Plan {
        rounds: plan.pick(TURNS.max(plan.rounds), plan.rounds),
        sample: plan.sample.min(SAMPLE),
        ..plan.clone()
    };
    let tables =
        [("1 publisher, 1 worker", 1, 1), ("4 publishers, 2 workers", 4, 2)].map(|(title, publishers, workers)| {
            let shape = Shape::new(publishers, workers, 1_024);
            let runners = [(OFF, false), (ON, true)].map(|(name, on)| {
                Runner::new(Box::new(Ours::new(Way::Publish).metrics(on)), move |events| Work::new(shape, events))
                    .called(name)
            });
            Table::new(format!("{title}, capacity 1,024"), "events/s", &[OFF], race(&plan, runners))
        });
    let goals = tables.iter().map(|table| {
        Goal::new(
            "cost",
            format!("metrics, {}, by the rate without", table.title),
            table.ratio(ON, OFF),
            Bound::AtLeast(0.95),
        )
    });
    Section {
        name: "metrics",
        title: "Metrics",
        method: "As in throughput, with and without counts and times by source and type, in many short turns.",
        goals: goals.collect(),
        tables: tables.into(),
    }
}
