//! Latency between two processes that share an SQLite file. This program starts itself as the receiver.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};
use std::{env, io, thread};

use eventbroker::Broker;
use eventbroker_sql::Sqlite;

use super::{STOP, event, options};
use crate::harness::{Plan, Samples, quantile};
use crate::report::{Row, Table};

pub(super) const BUSY: &str = "at 1,000 events/s, p50";
pub(super) const IDLE: &str = "after idle, the longest";

fn start(path: &str) -> Broker {
    Broker::builder().provider(Sqlite::new(path).open().expect("it opens")).start().expect("it starts")
}

/// The receiving process: prints the latency of each event in nanoseconds, until its standard input closes.
pub(crate) fn receive(path: &str) {
    let broker = start(path);
    let took = |created: SystemTime| SystemTime::now().duration_since(created).unwrap_or_default().as_nanos();
    broker
        .subscribe_with(options(), move |delivery| println!("{}", took(delivery.event().created_at())))
        .expect("a subscription");
    println!("ready");
    let _ = io::stdin().lines().count();
    broker.stop(STOP);
}

pub(super) fn latency(plan: &Plan, path: &str) -> Table {
    let broker = start(path);
    let mut other = Command::new(env::current_exe().expect("this program"));
    other.args(["--internal-receiver", path]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = other.spawn().expect("a process");
    let mut lines = BufReader::new(other.stdout.take().expect("its output")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let mut next = || lines.next().and_then(|line| line.parse::<u64>().ok()).expect("a number of nanoseconds");
    let publish = || broker.publish(event().build().expect("a valid event")).expect("it is accepted");
    let events = plan.pick(2_000, 20);
    let busy: Samples = (0..plan.rounds)
        .map(|_| {
            for _ in 0..events {
                publish();
                thread::sleep(Duration::from_millis(1));
            }
            let mut took: Vec<u64> = (0..events).map(|_| next()).collect();
            quantile(&mut took, 0.5) / 1e6
        })
        .collect();
    let idle: Samples = (0..plan.rounds)
        .map(|_| {
            let took = (0..plan.pick(5, 1)).map(|_| {
                thread::sleep(Duration::from_millis(1_500));
                publish();
                next()
            });
            took.max().unwrap_or(0) as f64 / 1e6
        })
        .collect();
    end(other);
    broker.stop(STOP);
    Table::new("from process to process", "ms", &[], vec![Row::named(BUSY, busy), Row::named(IDLE, idle)])
}

/// Closes the input of the receiver, and waits for its end.
fn end(mut other: Child) {
    drop(other.stdin.take());
    other.wait().expect("it ends");
}
