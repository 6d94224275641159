//! `pipe` delivers 20,000 events in order, without loss or duplicates.

use crate::support::{event, run};
use serde_json::json;

const EVENTS: usize = 20_000;

fn input() -> String {
    (0..EVENTS)
        .map(|number| {
            let line = event(&format!("id-{number}"), "shop.orders.create", &json!({ "number": number }));
            if number % 3 == 0 { line } else { line.replacen('{', &format!(r#"{{"key":"{}","#, number % 7), 1) }
        })
        .collect()
}

#[test]
fn all_come_out_in_order() {
    let out = run(&["pipe", "--pattern", "shop.**"], &input());
    let numbers: Vec<_> = out.lines().iter().map(|line| line["payload"]["number"].as_u64()).collect();
    let expected: Vec<_> = (0..EVENTS as u64).map(Some).collect();
    assert!(numbers == expected, "{} of {EVENTS} came out: {}", numbers.len(), out.stderr);
    assert_eq!(out.code, Some(0));
}

#[test]
fn each_has_a_final_status() {
    let out = run(&["pipe", "--pattern", "shop.**", "--pattern", "*", "--status"], &input());
    let (events, statuses): (Vec<_>, Vec<_>) = out.lines().into_iter().partition(|line| line.get("payload").is_some());
    assert_eq!((events.len(), statuses.len()), (2 * EVENTS, EVENTS));
    assert!(statuses.iter().all(|line| line["status"] == "completed" && line["deliveries"][1]["verdict"] == "done"));
}

#[test]
fn what_nobody_wants_is_completed_too() {
    let out = run(&["pipe", "--pattern", "other.*", "--status"], &event("1", "a.b.c", &json!(1)));
    assert_eq!(out.lines(), [json!({ "id": "1", "type": "a.b.c", "status": "completed", "deliveries": [] })]);
}
