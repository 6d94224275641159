//! Memory per stored event: goal P6. Each figure comes from a new process, so that no freed memory is reused.

use std::env;
use std::fs;
use std::process::Command;
use std::time::Duration;

use eventbroker::{Broker, Event, Overflow, Source, SubscribeOptions};

use crate::harness::{EVENT_TYPE, PATTERN, Plan, payload_json};
use crate::report::{Bound, Goal, Row, Section, Table};

pub(crate) fn run(plan: &Plan) -> Section {
    // Memory is not affected by other processes, so few rounds are enough.
    let plan = &Plan { rounds: plan.rounds.min(3), ..plan.clone() };
    let sizes = [("100,000 events", plan.pick(100_000, 2_000)), ("1,000,000 events", plan.pick(1_000_000, 4_000))];
    let rounds = plan.interleave(&sizes, |(_, events)| in_fresh_process(*events));
    let rows = sizes.iter().zip(rounds).map(|((name, _), rounds)| Row::named(*name, rounds.into_iter().collect()));
    let table = Table::new("growth of the resident set", "bytes per stored event", &[], rows.collect());
    let goal = |(name, _): &(&str, usize)| {
        Goal::new("P6", format!("bytes per event, {name} stored"), table.figure(name), Bound::AtMost(400.0))
    };
    Section {
        name: "memory",
        title: "Memory per stored event",
        method: "A store for this many events is filled and then replaced once, all events handled; each event has its own payload of \
                 100 bytes. The growth of the process since before the broker was built, divided by the number of events in the \
                 store. The Go original: 518.",
        goals: sizes.iter().map(goal).collect(),
        tables: vec![table],
    }
}

fn in_fresh_process(events: usize) -> f64 {
    let this = env::current_exe().expect("the path of this program");
    let output = Command::new(this).args(["--internal-memory", &events.to_string()]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// Measures the bytes per stored event in this process.
pub(crate) fn bytes_per_event(events: usize) -> f64 {
    let before = resident_bytes();
    let broker = Broker::builder().max_events(events).start().expect("a broker");
    let options = SubscribeOptions::new(PATTERN).overflow(Overflow::Block(Duration::from_secs(10)));
    broker.subscribe_with(options, |_| ()).expect("a subscription");
    let json = payload_json();
    for _ in 0..2 * events {
        let event = Event::builder(Source::System, EVENT_TYPE).payload_json(json.as_bytes()).build();
        broker.publish(event.expect("a valid event")).expect("accepted");
    }
    while broker.stats().completed < 2 * events as u64 {
        std::thread::yield_now();
    }
    let grown = resident_bytes().saturating_sub(before);
    let stored = broker.store_stats().events;
    // A large store evicts in runs of positions, so it may hold up to 128 events fewer.
    assert!((events as u64 - 128..=events as u64).contains(&stored), "the store is full: {stored}");
    grown as f64 / stored as f64
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(|it| it.trim().strip_suffix(" kB"));
    kib.and_then(|it| it.trim().parse::<u64>().ok()).expect("a size") * 1024
}
