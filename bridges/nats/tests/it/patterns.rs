//! A changed pattern. Events that were stored before are handled by the pattern of that time; the consumer stays the same, and its filters follow.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::{PATIENCE, event, start, wait_until};
use eventbroker::{Broker, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

const CONSUMER: &str = "CONSUMER.INFO.RESOLVESPEC_EVENTS.resolvespec-workers==all";
const RECORD: &str = "events-state.subscription.resolvespec-workers==all";

/// Subscribes with a pattern, and returns the types of the handled events.
fn listen(broker: &Broker, pattern: &str) -> Receiver<String> {
    let (sender, calls) = channel();
    let options = SubscribeOptions::new(pattern).name("all").change_pattern();
    broker
        .subscribe_with(options, move |delivery| {
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().event_type().as_str().to_owned());
        })
        .expect("a subscription");
    calls
}

fn publish(broker: &Broker, types: &[&str]) {
    types.iter().for_each(|it| _ = broker.publish(event(it)).expect("it is accepted"));
}

fn next(calls: &Receiver<String>, count: usize) -> Vec<String> {
    (0..count).map(|_| calls.recv_timeout(PATIENCE).expect("the handler is called")).collect()
}

/// A record as the bridge stores it, in the stream of the server.
fn record(client: &mut Client, changes: u32, earlier: &str) -> String {
    let info: serde_json::Value =
        serde_json::from_str(&client.info("STREAM.INFO.RESOLVESPEC_EVENTS")).expect("an answer");
    format!(
        r#"{{"group":"resolvespec-workers","name":"all","pattern":"a.*","instance":"","durable":false,"owner":"","stream_made":{},"after":0,"start":1,"changes":{changes},"since":1,"earlier":[{earlier}]}}"#,
        info["created"]
    )
}

#[test]
fn a_changed_pattern_counts_for_later_events() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let second = Duration::from_secs(1);
    for (partitions, old, new) in [(0, "a.*", "c.*"), (2, "a.b", "a.*"), (0, "a.*.x", "a.b.*")] {
        let name = format!("PARTS{partitions}{}", old.len());
        let nats = Nats::new(server.url()).stream_name(&name).subject_prefix(&name);
        let broker = start(&nats.partitions(partitions).lease_time(second).idle_expiry(second));
        let id = broker.subscribe_with(SubscribeOptions::new(old).name("all"), |_| ()).expect("a subscription");
        broker.unsubscribe(id).expect("it is there");
        let types = ["a.b", "c.d", "a.c", "a.b.x", "a.c.x", "a.b.y"];
        let matching = |pattern: &str| {
            let pattern = eventbroker::Pattern::parse(pattern).expect("a pattern");
            let mut matching: Vec<&str> = types.into_iter().filter(|it| pattern.matches(it)).collect();
            matching.sort_unstable();
            matching
        };
        publish(&broker, &types);
        let calls = listen(&broker, new);
        let mut before = next(&calls, matching(old).len());
        before.sort_unstable();
        assert_eq!(before, matching(old), "{old}: stored before the change");
        publish(&broker, &types);
        let mut after = next(&calls, matching(new).len());
        after.sort_unstable();
        assert_eq!(after, matching(new), "{new}: stored after the change");
        assert!(calls.recv_timeout(second).is_err(), "no other event is handled");
        let consumer = if partitions == 0 { String::new() } else { "=p0".to_owned() };
        let consumer = format!("CONSUMER.INFO.{name}.resolvespec-workers==all{consumer}");
        let prefix = if partitions == 0 { name.clone() } else { format!("{name}-p.0") };
        let filter = format!("\"filter_subject\":\"{prefix}.*.{new}\"");
        wait_until("only the new pattern is a filter", || client.info(&consumer).contains(&filter));
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

#[test]
fn consumers_of_an_earlier_version_are_used_on() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let nats = Nats::new(server.url());
    drop(nats.open().expect("it opens"));
    // Earlier versions made a new consumer for a changed pattern.
    let stored = record(&mut client, 1, "");
    client.ask(RECORD, "", &stored);
    let broker = start(&nats);
    let calls = listen(&broker, "a.*");
    publish(&broker, &["a.b"]);
    assert_eq!(next(&calls, 1), ["a.b"]);
    assert!(client.info(&format!("{CONSUMER}=g1")).contains("\"filter_subject\":\"events.*.a.*\""));
    assert!(client.info(CONSUMER).contains("consumer not found"));
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn messages_in_consumers_of_an_earlier_version_are_refused_with_a_way_out() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let nats = Nats::new(server.url());
    drop(nats.open().expect("it opens"));
    let earlier = r#"{"changes":0,"pattern":"c.*","since":0,"until":7,"start":1}"#;
    let stored = record(&mut client, 1, earlier);
    client.ask(RECORD, "", &stored);
    let broker = start(&nats);
    let options = SubscribeOptions::new("a.*").name("all");
    let refused = broker.subscribe_with(options, |_| ()).expect_err("messages wait in another consumer");
    let text = refused.to_string();
    assert!(text.contains("earlier pattern c.*") && text.contains("run that version until they are handled"), "{text}");
    assert_eq!(broker.remove_subscription("all"), Ok(true));
    listen(&broker, "a.*");
    assert!(broker.stop(PATIENCE).is_clean());
}
