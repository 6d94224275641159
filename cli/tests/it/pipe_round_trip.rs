//! Events pass through `pipe` in both formats unchanged.

use crate::support::{event, run};
use serde_json::{Value, json};

fn full() -> Value {
    json!({
        "id": "order-1", "source": "frontend", "type": "shop.orders.create", "status": "pending", "retry_count": 0,
        "payload": { "total": 12.5, "lines": [1, 2] }, "user_id": 9_007_199_254_740_993_i64, "session_id": "s 1",
        "instance_id": "node/1 ü", "schema": "shop", "entity": "orders", "operation": "insert",
        "created_at": "2026-11-23T10:00:00.123456789Z",
        "metadata": { "table_name": "orders", "trace": "x", "roles": ["a", "b"] }, "key": "customer/7",
    })
}

#[test]
fn our_json_comes_out_as_it_went_in() {
    let out = run(&["pipe", "--pattern", "*"], &format!("{}\n", full()));
    assert_eq!((out.code, out.lines()), (Some(0), vec![full()]));
}

#[test]
fn our_json_survives_the_way_through_cloud_events() {
    let middle = run(&["pipe", "--pattern", "*", "--cloudevents"], &format!("{}\n", full()));
    let attributes = &middle.lines()[0];
    assert_eq!(attributes["specversion"], "1.0");
    assert_eq!(attributes["source"], "/eventbroker/node%2F1%20%C3%BC/frontend");
    assert_eq!(attributes["subject"], "shop.orders/customer/7");
    assert_eq!(attributes["partitionkey"], "customer/7");
    assert_eq!(attributes["data"], full()["payload"]);
    let out = run(&["pipe", "--pattern", "*"], &middle.stdout);
    assert_eq!((out.code, out.lines()), (Some(0), vec![full()]));
}

#[test]
fn a_foreign_cloud_event_survives_the_way_through_our_json() {
    let foreign = json!({
        "specversion": "1.0", "id": "A1", "source": "https://example.com/mails", "type": "com.example.mail.sent",
        "subject": "anything", "time": "2026-11-23T10:00:00Z", "datacontenttype": "application/json",
        "traceparent": "00-4bf9-1", "data": { "to": "ada" },
    });
    let arguments = ["pipe", "--pattern", "com.**", "--source", "websocket"];
    let middle = run(&arguments, &format!("{foreign}\n"));
    let ours = &middle.lines()[0];
    assert_eq!((&ours["source"], &ours["metadata"]["ce_source"]), (&json!("websocket"), &foreign["source"]));
    let out = run(&["pipe", "--pattern", "*", "--cloudevents"], &middle.stdout);
    let mut back = out.lines().remove(0);
    // The attributes that the broker adds begin with `eb`.
    assert_eq!(back["ebsource"], "websocket");
    let added = back.as_object_mut().expect("an object");
    added.retain(|name, _| !name.starts_with("eb"));
    assert_eq!(back, foreign);
}

#[test]
fn only_what_matches_comes_out_and_once_per_pattern() {
    let input = event("1", "shop.orders.create", &json!(1)) + &event("2", "shop.users.create", &json!(2));
    let out = run(&["pipe", "--pattern", "shop.orders.*", "--pattern", "*.*.create"], &input);
    let mut ids: Vec<_> = out.lines().iter().map(|line| line["id"].to_string()).collect();
    ids.sort();
    assert_eq!((out.code, ids), (Some(0), vec!["\"1\"".to_owned(), "\"1\"".to_owned(), "\"2\"".to_owned()]));
}

#[test]
fn an_event_that_comes_twice_is_delivered_once() {
    let line = event("1", "a.b.c", &json!(1));
    let out = run(&["pipe", "--pattern", "*", "--json"], &line.repeat(2));
    let report: Value = serde_json::from_str(&out.stderr).expect("one JSON object");
    assert_eq!((out.code, out.lines().len(), &report["duplicates"]), (Some(0), 1, &json!(1)));
}
