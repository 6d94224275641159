//! A publisher of one type publishes what `publish` publishes, and sees subscriptions come and go.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use eventbroker::error::{Invalid, Problem};
use eventbroker::{Broker, EventId, Mode, PublishError, Publisher, Source};

use crate::support::{PATIENCE, event};

fn listen(broker: &Broker, pattern: &str) -> (eventbroker::SubscriptionId, Receiver<EventId>) {
    let (sender, receiver) = channel();
    let handler = move |delivery: &eventbroker::Delivery<'_>| {
        // The test may have ended.
        let _ = sender.send(delivery.event().id().clone());
    };
    (broker.subscribe(pattern, handler).expect("a valid pattern"), receiver)
}

fn publish(publisher: &mut Publisher) -> EventId {
    publisher.publish(publisher.event().build().expect("valid")).expect("room").id
}

#[test]
fn its_events_have_its_type_and_source() {
    let broker = Broker::builder().start().expect("valid settings");
    let mut publisher = broker.publisher(Source::Frontend, "shop.orders.create").expect("a valid type");
    let id = publish(&mut publisher);
    let event = broker.get(&id).expect("no back end").expect("it is held");
    assert_eq!((event.event_type().as_str(), event.source()), ("shop.orders.create", Source::Frontend));
    assert_eq!(event.instance_id(), Some(broker.instance_id()));
}

#[test]
fn it_sees_subscriptions_come_and_go() {
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
    broker.unsubscribe(first).expect("it is there");
    let three = publish(&mut publisher);
    assert_eq!(at_second.recv_timeout(PATIENCE).as_ref(), Ok(&three));
    assert_eq!(at_first.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected), "its handler is gone");
}

#[test]
fn it_publishes_events_of_other_types_too() {
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
fn in_mode_sync_it_returns_when_the_handler_has() {
    let broker = Broker::builder().mode(Mode::Sync).start().expect("valid settings");
    let (_, received) = listen(&broker, "now");
    let mut publisher = broker.publisher(Source::System, "now").expect("a valid type");
    let id = publish(&mut publisher);
    assert_eq!(received.try_recv().as_ref(), Ok(&id));
}

#[test]
fn a_type_that_is_malformed_is_refused() {
    let broker = Broker::builder().start().expect("valid settings");
    let refused = broker.publisher(Source::System, "a..b").expect_err("an empty segment");
    assert_eq!(refused, Invalid { field: "type", problem: Problem::EmptySegment { position: 2 } });
}

#[test]
fn it_keeps_the_broker_running_and_is_refused_after_stop() {
    let broker = Broker::builder().start().expect("valid settings");
    let mut publisher = broker.publisher(Source::System, "last").expect("a valid type");
    let copy = broker.clone();
    drop(broker);
    publish(&mut publisher);
    copy.stop(PATIENCE);
    let event = publisher.event().build().expect("valid");
    let refused = publisher.publish(event.clone()).expect_err("it has stopped");
    assert!(matches!(&refused, PublishError::NotRunning { .. }), "{refused}");
    assert_eq!(refused.into_event(), event);
}
