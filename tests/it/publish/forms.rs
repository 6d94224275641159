//! The results of the forms of publish: `publish`, `publish_async` with a receipt, `publish_batch`.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use eventbroker::error::FullLimit;
use eventbroker::{Broker, Event, Overflow, PublishError, Source, SubscribeOptions};

use crate::support::{Gate, PATIENCE, Settlements, event, receive, wait_until};

const AN_HOUR: Duration = Duration::from_secs(3600);

/// A broker whose subscription "tight" to "tight.*" is full: one call waits at the gate, and the only place is taken.
fn with_a_full_subscription(overflow: Overflow) -> (Broker, Gate) {
    let broker = Broker::builder().start().expect("a running broker");
    let gate = Gate::closed();
    let options = SubscribeOptions::new("tight.*").name("tight").concurrency(1).queue_capacity(1).overflow(overflow);
    let handler_gate = gate.clone();
    broker.subscribe_with(options, move |_| handler_gate.pass()).expect("a subscription");
    broker.publish(event("tight.running")).expect("accepted");
    gate.wait_for_arrival();
    broker.publish(event("tight.queued")).expect("accepted");
    (broker, gate)
}

#[test]
fn publish_returns_the_id_and_the_number_of_deliveries() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    broker.subscribe("a.*", |_| ()).expect("a subscription");
    broker.subscribe("*", |_| ()).expect("a subscription");
    let (two, one) = (event("a.b"), event("c"));

    let accepted = broker.publish(two.clone()).expect("accepted");
    assert_eq!((&accepted.id, accepted.duplicate, accepted.deliveries), (two.id(), false, 2));
    let accepted = broker.publish(one.clone()).expect("accepted");
    assert_eq!((&accepted.id, accepted.duplicate, accepted.deliveries), (one.id(), false, 1));
    assert_eq!(settlements.take(3).iter().filter(|it| it.id == *two.id()).count(), 2);
}

#[test]
fn a_receipt_has_its_result_immediately() {
    let broker = Broker::builder().start().expect("a running broker");
    broker.subscribe("a.*", |_| ()).expect("a subscription");
    let sent = event("a.b");
    let receipt = broker.publish_async(sent.clone()).expect("accepted");
    assert_eq!(receipt.id(), sent.id());
    for timeout in [Duration::ZERO, AN_HOUR, Duration::MAX] {
        let accepted = receipt.wait(timeout).expect("accepted");
        assert_eq!((&accepted.id, accepted.duplicate, accepted.deliveries), (sent.id(), false, 1));
    }
}

#[test]
fn publish_async_is_refused_where_publish_would_wait_for_a_place() {
    let (broker, gate) = with_a_full_subscription(Overflow::Block(AN_HOUR));
    let (sender, outcome) = channel();
    let publisher = broker.clone();
    let thread = thread::spawn(move || sender.send(publisher.publish_async(event("tight.third"))));
    let refused = receive(&outcome, "a result without a free place").expect_err("no room");
    let expected = FullLimit::Subscription { name: "tight".into(), capacity: 1 };
    assert!(matches!(&refused, PublishError::Full { limit, .. } if *limit == expected), "{refused:?}");
    assert!(refused.is_full());
    assert_eq!(refused.code(), "queue_full");
    thread.join().expect("no panic").expect("received");
    assert_eq!((broker.stats().accepted, broker.stats().rejected), (2, 1));
    gate.open();
}

#[test]
fn each_event_of_a_batch_has_its_own_result_in_order() {
    let (broker, gate) = with_a_full_subscription(Overflow::Reject);
    let known = event("other.known");
    broker.publish(known.clone()).expect("accepted");
    let conflicting = Event::builder(Source::System, "other.known").id(known.id().clone()).user_id(7).build();
    let batch = [
        event("other.first"),
        event("tight.refused"),
        known,
        conflicting.expect("a valid event"),
        event("tight.refused"),
        event("other.last"),
    ];

    let outcomes = broker.publish_batch(batch.clone());

    let told: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(accepted) if accepted.duplicate => "known",
            Ok(_) => "new",
            Err(refused) => refused.code(),
        })
        .collect();
    assert_eq!(told, ["new", "queue_full", "known", "id_conflict", "queue_full", "new"]);
    for (outcome, sent) in outcomes.iter().zip(&batch) {
        let id = match outcome {
            Ok(accepted) => &accepted.id,
            Err(refused) => refused.event().id(),
        };
        assert_eq!(id, sent.id());
    }
    gate.open();
}

#[test]
fn an_empty_batch_has_no_results() {
    let broker = Broker::builder().start().expect("a running broker");
    assert!(broker.publish_batch([]).is_empty());
    assert_eq!(broker.stats().accepted, 0);
}

#[test]
fn a_batch_waits_for_places_like_publish() {
    let broker = Broker::builder().start().expect("a running broker");
    let options = SubscribeOptions::new("*").queue_capacity(2).overflow(Overflow::Block(AN_HOUR));
    broker.subscribe_with(options, |_| ()).expect("a subscription");
    let outcomes = broker.publish_batch((0..2_000).map(|_| event("a")));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2_000);
    wait_until("all are handled", || broker.stats().deliveries.done == 2_000);
    assert!(broker.stop(PATIENCE).is_clean());
}
