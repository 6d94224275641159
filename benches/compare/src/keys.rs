//! The cost of order: events with keys against events without.

use std::sync::Arc;

use crate::harness::{Plan, Shape, Work};
use crate::race::{Runner, race};
use crate::report::{Bound, Goal, Section, Table};
use crate::rivals::{Ours, Way};

const SHAPE: Shape = Shape::new(1, 1, 1_024);
const UNKEYED: &str = "no keys";
const CASES: [(&str, usize); 4] = [(UNKEYED, 0), ("1 key", 1), ("100 keys", 100), ("100,000 keys", 100_000)];

pub(crate) fn run(plan: &Plan) -> Section {
    let runners = CASES.map(|(name, count)| {
        let keys: Arc<[String]> = (0..count).map(|n| format!("customer-{n}")).collect();
        let work = move |events| Work::new(SHAPE, events).with_keys(&keys);
        Runner::new(Box::new(Ours::new(Way::Publish)), work).called(name)
    });
    let table = Table::new("1 publisher, capacity 1,024", "events/s", &[UNKEYED], race(plan, runners));
    let goal = |name: &str| {
        Goal::new("keys", format!("{name}, by the rate without keys"), table.ratio(name, UNKEYED), Bound::AtLeast(0.7))
    };
    Section {
        name: "keys",
        title: "Keys",
        method: "As in throughput, but each event has one of this many keys, in turn. Events of one key are handled one at a time. \
                 The case of one key has no bound.",
        goals: vec![goal("100 keys"), goal("100,000 keys")],
        tables: vec![table],
    }
}
