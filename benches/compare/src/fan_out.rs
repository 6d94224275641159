//! One event for many subscriptions: goal P7.

use crate::harness::{Plan, Shape, Work};
use crate::race::{Runner, race};
use crate::report::{Bound, Goal, Section, Table};
use crate::rivals::{Bare, Bus, Crossbeam, Direct, Flume, Ours, Rival, TokioBroadcast, Way};

pub(crate) fn run(plan: &Plan) -> Section {
    let ten = measure(plan, 10);
    let ours = Ours::new(Way::Publish).name();
    let goals = vec![
        Goal::new("P7", "deliveries/s to 10 subscriptions", ten.figure(ours), Bound::AtLeast(5_000_000.0)),
        Goal::new("P7", "to 10 subscriptions: sleeps per event", ten.sleeps(ours), Bound::AtMost(0.01)),
    ];
    Section {
        name: "fan-out",
        title: "Fan-out",
        method: "1 publisher, capacity 1,024; every subscription receives every event, and its handler counts. One channel per \
                 subscription, each with a thread; ours is the default pool of 10 threads. Sleeps are those of all threads of the \
                 process.",
        tables: vec![ten, measure(plan, 100)],
        goals,
    }
}

fn measure(plan: &Plan, subscriptions: usize) -> Table {
    let shape = Shape { subscriptions, ..Shape::new(1, 1, 1_024) };
    let runners: [Box<dyn Rival>; 6] = [
        Box::new(Ours::new(Way::Publish)),
        Box::new(Bare(Flume)),
        Box::new(Bare(Crossbeam)),
        Box::new(TokioBroadcast::default()),
        Box::new(Bus),
        Box::new(Direct::default()),
    ];
    let runners = runners.map(|rival| Runner::new(rival, move |events| Work::new(shape, events)));
    Table::new(format!("to {subscriptions} subscriptions"), "deliveries/s", &["bare flume"], race(plan, runners))
}
