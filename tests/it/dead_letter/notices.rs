//! Each dead letter is announced by one `eventbroker.dead_letter` event. A dead letter of a notice is not announced.

use std::sync::mpsc::channel;

use eventbroker::dead_letter::DeadLetterFilter;
use eventbroker::{Broker, Event, EventStream, HandlerError, RetryPolicy, Source, StreamItem, SubscribeOptions};
use serde_json::{Value, json};

use crate::support::{Gate, event, receive, wait_until};

const NOTICE: &str = "eventbroker.dead_letter";

fn failing(_: &eventbroker::Delivery<'_>) -> Result<(), HandlerError> {
    Err(HandlerError::permanent("always"))
}

fn unread(stream: &EventStream) -> Vec<Event> {
    std::iter::from_fn(|| stream.try_recv().ok())
        .map(|item| match item {
            StreamItem::Event(event) => event,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_notice_names_the_failed_delivery_and_its_error() {
    let broker = Broker::builder().retry_policy(RetryPolicy::fixed(1, Default::default())).start().expect("valid");
    let (sender, notices) = channel();
    broker
        .subscribe(NOTICE, move |delivery| {
            let _ = sender.send(delivery.event().clone());
        })
        .expect("valid");
    let options = SubscribeOptions::new("shop.orders.create").name("mailer");
    broker.subscribe_with(options, |delivery| Err::<(), _>(format!("no {}", delivery.attempt()))).expect("valid");
    let id = broker.publish_sync(event("shop.orders.create")).expect("room").id;

    let notice: Event = receive(&notices, "the notice");
    assert_eq!((notice.source(), notice.event_type().as_str()), (Source::System, NOTICE));
    let letter = broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers").remove(0);
    let expected = json!({
        "dead_letter_id": letter.id,
        "event_id": id.to_string(),
        "event_type": "shop.orders.create",
        "subscription": "mailer",
        "reason": "exhausted",
        "attempts": 2,
        "error": "no 2",
    });
    assert_eq!(notice.payload_as::<Value>().expect("an object"), expected);
    wait_until("the notice is handled", || broker.stats().in_flight == 0);
    assert!(notices.try_recv().is_err(), "there is one notice");
}

#[test]
fn each_dead_letter_has_one_notice() {
    let broker = Broker::builder().start().expect("valid settings");
    let stream = broker.stream(NOTICE).expect("valid");
    broker.subscribe("x", failing).expect("valid");
    broker.subscribe("x", failing).expect("valid");
    broker.subscribe("x", |_| ()).expect("valid");
    (0..10).for_each(|_| drop(broker.publish_sync(event("x")).expect("room")));
    let letters = broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers");
    let mut announced: Vec<u64> = unread(&stream)
        .iter()
        .map(|notice| notice.payload_as::<Value>().expect("an object")["dead_letter_id"].as_u64().expect("a number"))
        .collect();
    announced.sort_unstable();
    assert_eq!(announced.len(), 20);
    assert_eq!(announced, letters.iter().map(|letter| letter.id).collect::<Vec<_>>());
}

#[test]
fn a_notice_that_fails_becomes_a_dead_letter_without_a_notice() {
    let broker = Broker::builder().start().expect("valid settings");
    let stream = broker.stream(NOTICE).expect("valid");
    // Subscriptions that fail for every event, notices included.
    broker.subscribe("*", failing).expect("valid");
    broker.subscribe(NOTICE, failing).expect("valid");
    broker.publish_sync(event("x")).expect("room");
    wait_until("all are settled", || broker.stats().in_flight == 0);
    // One dead letter for the event, and one for each subscription that received its notice.
    assert_eq!(broker.dead_letter_count().expect("the back end answers"), 3);
    assert_eq!(unread(&stream).len(), 1);
    assert_eq!(broker.stats().accepted, 2);

    // The same for an event of this type that a user publishes.
    broker.publish_sync(event(NOTICE)).expect("room");
    wait_until("all are settled", || broker.stats().in_flight == 0);
    assert_eq!((broker.dead_letter_count().expect("the back end answers"), unread(&stream).len()), (5, 1));
}

#[test]
fn a_notice_that_finds_no_place_is_counted_and_the_dead_letter_is_kept() {
    let broker = Broker::builder().start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let options = SubscribeOptions::new(NOTICE).ordered().queue_capacity(1);
    broker.subscribe_with(options, move |_| pass.pass()).expect("valid");
    broker.subscribe("x", failing).expect("valid");
    broker.publish_sync(event("x")).expect("room");
    gate.wait_for_arrival();
    // The second notice takes the only place of the queue.
    (0..4).for_each(|_| drop(broker.publish_sync(event("x")).expect("room")));
    let stats = broker.stats();
    assert_eq!((stats.dead_letters, stats.dead_letter_notices_lost, stats.failed), (5, 3, 5));
    gate.open();
    wait_until("the notices are handled", || broker.stats().in_flight == 0);
    assert_eq!(broker.stats().completed, 2);
}
