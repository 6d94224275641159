//! The cost of subscriptions that do not match: goal P4. Events end to end, and the router by itself.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use eventbroker::internals::Router;
use eventbroker::{EventType, Pattern};

use crate::harness::{PATTERN, Plan, Samples, Shape, Work, other_pattern};
use crate::race::{Runner, race};
use crate::report::{Bound, Goal, Row, Section, Table};
use crate::rivals::{Direct, Ours, TokioBroadcast, Way};

const SHAPE: Shape = Shape::new(1, 1, 1_024);
/// Far more types than slots in the route cache: routed in turn, every one is a miss.
const MANY_TYPES: usize = 20_000;

pub(crate) fn run(plan: &Plan) -> Section {
    let many = plan.pick(100_000, 2_000);
    let (router, goals) = router_alone(plan, many);
    Section {
        name: "routing",
        title: "Routing among subscriptions that do not match",
        method: "1 publisher, capacity 1,024; one of all subscriptions matches. A hit is an event of a cached type, a miss one of \
                 20,000 types in turn. The broadcast runs a thread per subscription and wakes each for each event; neither the \
                 broadcast nor the list is run with 100,000, where they would only scan.",
        tables: vec![end_to_end(plan, many), router],
        goals,
    }
}

fn end_to_end(plan: &Plan, many: usize) -> Table {
    let ours = Ours::new(Way::Publish);
    let work = |events| Work::new(SHAPE, events);
    let types = types(MANY_TYPES);
    let missing = move |events| Work::new(SHAPE, events).with_types(&types);
    let few = plan.pick(1_000, 50);
    let runners = [
        Runner::new(Box::new(ours), work).called(HIT_1),
        Runner::new(Box::new(ours.among(few - 1)), work).called("eventbroker, 1,000, hits"),
        Runner::new(Box::new(ours.among(many - 1)), work).called("eventbroker, 100,000, hits"),
        Runner::new(Box::new(ours), missing.clone()).called("eventbroker, 1, misses"),
        Runner::new(Box::new(ours.among(many - 1)), missing).called("eventbroker, 100,000, misses"),
        Runner::new(Box::new(TokioBroadcast::default()), work).called("tokio broadcast + filter, 1"),
        Runner::new(Box::new(TokioBroadcast { others: few - 1 }), work).called("tokio broadcast + filter, 1,000"),
        Runner::new(Box::new(Direct::default()), work).called("direct call, list scanned, 1"),
        Runner::new(Box::new(Direct { others: few - 1 }), work).called("direct call, list scanned, 1,000"),
    ];
    Table::new("end to end", "events/s", &[HIT_1], race(plan, runners))
}

const HIT_1: &str = "eventbroker, 1, hits";

fn types(count: usize) -> Arc<[String]> {
    (0..count).map(|n| format!("bench.orders.t{n}")).collect()
}

type Targets = Router<Arc<u64>>;

fn router(others: usize) -> Targets {
    let router = Router::new();
    router.insert(&Pattern::parse(PATTERN).expect("a valid pattern"), 0, Arc::new(0));
    for n in 0..others {
        let id = n as u64 + 1;
        router.insert(&Pattern::parse(&other_pattern(n)).expect("a valid pattern"), id, Arc::new(id));
    }
    router
}

/// Measures the router by itself, in nanoseconds per route.
fn router_alone(plan: &Plan, many: usize) -> (Table, Vec<Goal>) {
    let (alone, crowded) = (router(0), router(many - 1));
    let parsed = |count| -> Vec<EventType> {
        types(count).iter().map(|text| EventType::parse(text).expect("a valid type")).collect()
    };
    let (one, twenty_thousand) = (parsed(1), parsed(MANY_TYPES));
    let cases = [
        ("hit, 1 subscription", &alone, &one),
        ("hit, 100,000 subscriptions", &crowded, &one),
        ("miss, 1 subscription", &alone, &twenty_thousand),
        ("miss, 100,000 subscriptions", &crowded, &twenty_thousand),
    ];
    let passes = plan.pick(40, 1);
    let rounds = plan.interleave(&cases, |(_, router, types)| {
        let routes = passes * MANY_TYPES;
        let started = Instant::now();
        for event_type in types.iter().cycle().take(routes) {
            assert_eq!(black_box(router.lookup(black_box(event_type)).targets().len()), 1);
        }
        started.elapsed().as_nanos() as f64 / routes as f64
    });
    let rows =
        cases.iter().zip(rounds).map(|((name, ..), rounds)| Row::named(*name, rounds.into_iter().collect::<Samples>()));
    let table = Table::new("the router by itself", "ns per route", &[], rows.collect());
    let ratio = |kind: &str| table.ratio(&format!("{kind}, 100,000 subscriptions"), &format!("{kind}, 1 subscription"));
    let goals = vec![
        Goal::new("P4", "a hit among 100,000 subscriptions, by one of 1", ratio("hit"), Bound::AtMost(1.2)),
        Goal::new("P4", "a miss among 100,000 subscriptions, by one of 1", ratio("miss"), Bound::AtMost(4.0)),
    ];
    (table, goals)
}
