//! `Publisher`: publishes events of one type like `publish`, and follows new and removed subscriptions.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use eventbroker::error::{Invalid, Problem};
use eventbroker::{Broker, EventId, Mode, PublishError, Publisher, Source};

use crate::support::{PATIENCE, event};

fn listen(broker: &Broker, pattern: &str) -> (eventbroker::SubscriptionId, Receiver<EventId>) {
    let (sender, receiver) = channel();
    let handler = move |delivery: &eventbroker::Delivery<'_>| {
        // The receiver is gone when the test has ended.
        let _ = sender.send(delivery.event().id().clone());
    };
    (broker.subscribe(pattern, handler).expect("a valid pattern"), receiver)
}

fn publish(publisher: &mut Publisher) -> EventId {
    publisher.publish(publisher.event().build().expect("valid")).expect("room").id
}

#[test]
fn events_of_a_publisher_have_its_type_and_source() {
    let broker = Broker::builder().start().expect("valid settings");
    let mut publisher = broker.publisher(Source::Frontend, "shop.orders.create").expect("a valid type");
    let id = publish(&mut publisher);
    let event = broker.get(&id).expect("no back end").expect("stored");
    assert_eq!((event.event_type().as_str(), event.source()), ("shop.orders.create", Source::Frontend));
    assert_eq!(event.instance_id(), Some(broker.instance_id()));
}

#[test]
fn a_publisher_follows_new_and_removed_subscriptions() {
    let broker = Broker::builder().start().expect("valid settings");
    let mut publisher = broker.publisher(Source::System, "a.b.c").expect("a valid type");
    publish(&mut publisher);
    let (first, at_first) = listen(&broker, "a.b.*");
    let one = publish(&mut publisher);
    assert_eq!(at_first.recv_timeout(PATIENCE).as_ref(), Ok(&one));
    let (_, at_second) = listen(&broker, "a.**");
    let two = publish(&mut publisher);
    assert_eq!(at_first.recv_timeout(PATIENCE).as_ref(), Ok(&two));
    assert_eq!(at_second.recv_timeout(PATIENCE).as_ref(), Ok(&two));
    broker.unsubscribe(first).expect("subscribed");
    let three = publish(&mut publisher);
    assert_eq!(at_second.recv_timeout(PATIENCE).as_ref(), Ok(&three));
    assert_eq!(
        at_first.recv_timeout(PATIENCE),
        Err(RecvTimeoutError::Disconnected),
        "the handler of the removed subscription is dropped"
    );
}

#[test]
fn a_publisher_publishes_events_of_other_types_too() {
    let broker = Broker::builder().start().expect("valid settings");
    let (_, received) = listen(&broker, "other");
    let mut publisher = broker.publisher(Source::System, "mine").expect("a valid type");
    publish(&mut publisher);
    let id = publisher.publish(event("other")).expect("room").id;
    publish(&mut publisher);
    assert_eq!(received.recv_timeout(PATIENCE).as_ref(), Ok(&id));
    drop(publisher);
    assert!(broker.stop(PATIENCE).is_clean());
    assert_eq!(received.try_iter().count(), 0);
}

#[test]
fn in_mode_sync_a_publisher_returns_when_the_handler_has_returned() {
    let broker = Broker::builder().mode(Mode::Sync).start().expect("valid settings");
    let (_, received) = listen(&broker, "now");
    let mut publisher = broker.publisher(Source::System, "now").expect("a valid type");
    let id = publish(&mut publisher);
    assert_eq!(received.try_recv().as_ref(), Ok(&id));
}

#[test]
fn a_malformed_type_is_refused() {
    let broker = Broker::builder().start().expect("valid settings");
    let refused = broker.publisher(Source::System, "a..b").expect_err("an empty segment");
    assert_eq!(refused, Invalid { field: "type", problem: Problem::EmptySegment { position: 2 } });
}

#[test]
fn a_publisher_keeps_the_broker_running_and_is_refused_after_stop() {
    let broker = Broker::builder().start().expect("valid settings");
    let mut publisher = broker.publisher(Source::System, "last").expect("a valid type");
    let copy = broker.clone();
    drop(broker);
    publish(&mut publisher);
    copy.stop(PATIENCE);
    let event = publisher.event().build().expect("valid");
    let refused = publisher.publish(event.clone()).expect_err("the broker has stopped");
    assert!(matches!(&refused, PublishError::NotRunning { .. }), "{refused}");
    assert_eq!(refused.into_event(), event);
}
