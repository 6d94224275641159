//! `bench` reports the rate and the latencies, and ends early on a signal.

use std::io::Read;

use crate::support::{command, run, signal};
use serde_json::Value;

#[test]
fn it_measures() {
    let out = run(&["bench", "--seconds", "1", "--subscriptions", "3", "--publishers", "1", "--json"], "");
    let results = &out.lines()[0];
    let figure = |name: &str| results[name].as_f64().expect("a number");
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    assert!(figure("events") > 0.0 && figure("deliveries") == 3.0 * figure("events"));
    let quantiles = ["p50_micros", "p90_micros", "p99_micros", "p999_micros"].map(figure);
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{quantiles:?}");
}

#[test]
fn people_get_a_table() {
    let out = run(&["bench", "--seconds", "1"], "");
    for word in ["events", "deliveries", "p50", "p90", "p99", "p99.9", "/s"] {
        assert!(out.stdout.contains(word), "{}", out.stdout);
    }
    assert_eq!(out.stderr, "");
}

#[test]
fn a_signal_ends_it_with_what_was_measured() {
    let mut child = command(&["bench", "--seconds", "3600", "--json"]).spawn().expect("it starts");
    // The command handles signals once it runs at least 3 threads.
    let tasks = format!("/proc/{}/task", child.id());
    while std::fs::read_dir(&tasks).expect("it runs").count() < 3 {
        std::thread::yield_now();
    }
    signal(&child, "INT");
    let mut out = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let results: Value = serde_json::from_str(&out).expect("one JSON object");
    assert!(results["seconds"].as_f64().expect("a number") < 60.0);
}
