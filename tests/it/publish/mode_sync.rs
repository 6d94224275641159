//! Mode "sync": `publish` returns when the event has been handled; the other forms are unchanged.

use eventbroker::{Broker, Mode, Outcome, PublishError, Status, SubscribeOptions};

use crate::support::{Gate, event, in_time, wait_until};

fn status(broker: &Broker, id: &eventbroker::EventId) -> Status {
    broker.get(id).expect("the memory store").expect("the event").status()
}

#[test]
fn publish_returns_when_the_event_has_been_handled() {
    let broker = Broker::builder().mode(Mode::Sync).start().expect("a running broker");
    broker.subscribe("*", |_| ()).expect("a subscription");
    broker.subscribe("good", |_| ()).expect("a subscription");
    broker.subscribe("bad", |_| Outcome::Permanent("no".into())).expect("a subscription");
    for _ in 0..100 {
        let good = broker.publish(event("good")).expect("accepted");
        assert_eq!((good.duplicate, good.deliveries), (false, 2));
        assert_eq!(status(&broker, &good.id), Status::Completed);
        // A failed delivery is not a refusal: the store has the event, with the status failed.
        let bad = broker.publish(event("bad")).expect("accepted");
        assert_eq!((bad.duplicate, bad.deliveries), (false, 2));
        assert_eq!(status(&broker, &bad.id), Status::Failed);
    }
}

#[test]
fn publish_reports_duplicates_conflicts_and_deadlocks() {
    let broker = Broker::builder().mode(Mode::Sync).start().expect("a running broker");
    let options = SubscribeOptions::new("nested").concurrency(1);
    broker
        .subscribe_with(options, |delivery| {
            let broker = delivery.broker().expect("the broker lives");
            assert!(matches!(broker.publish(event("nested")), Err(PublishError::WouldDeadlock { .. })));
        })
        .expect("a subscription");
    let sent = event("nested");
    assert!(!broker.publish(sent.clone()).expect("accepted").duplicate);
    let again = broker.publish(sent).expect("accepted");
    assert_eq!((again.duplicate, again.deliveries), (true, 0));
    assert_eq!((broker.stats().completed, broker.stats().failed, broker.stats().retries), (1, 0, 0));
}

#[test]
fn publish_async_and_batches_do_not_wait_for_handlers() {
    let broker = Broker::builder().mode(Mode::Sync).start().expect("a running broker");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    broker.subscribe("*", move |_| handler_gate.pass()).expect("a subscription");
    let publisher = broker.clone();
    let publish = move || (publisher.publish_async(event("a")), publisher.publish_batch([event("a"), event("a")]));
    let (receipt, outcomes) = in_time("both calls, while the handler waits at the gate", publish);
    let receipt = receipt.expect("accepted");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    assert_eq!(broker.stats().completed, 0);
    assert_ne!(status(&broker, receipt.id()), Status::Completed);
    gate.open();
    wait_until("all are handled", || broker.stats().completed == 3);
}
