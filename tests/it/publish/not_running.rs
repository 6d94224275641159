//! The life of a broker: subscriptions are accepted before it starts, events only while it runs, and a stop is final.

use std::sync::mpsc::channel;

use eventbroker::error::{StartError, SubscribeError};
use eventbroker::{Broker, PublishError};

use crate::support::{PATIENCE, event, receive};

/// Publishes one event by each form; each must be refused with `NotRunning` and return the unchanged event.
fn assert_gives_every_event_back(broker: &Broker) {
    let sent = event("a.b.c");
    let refusals = [
        broker.publish(sent.clone()).expect_err("publish must be refused"),
        broker.publish_async(sent.clone()).map(|receipt| receipt.id().clone()).expect_err("publish_async, too"),
        broker.publish_sync(sent.clone()).expect_err("publish_sync, too"),
        broker.publish_batch([sent.clone()]).remove(0).expect_err("publish_batch, too"),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, PublishError::NotRunning { .. }), "{refusal:?}");
        assert_eq!((refusal.code(), refusal.to_string().as_str()), ("not_running", "broker is not running"));
        assert_eq!(refusal.event(), &sent);
        assert_eq!(refusal.into_event(), sent);
    }
    assert_eq!(broker.get(sent.id()).expect("the memory store"), None);
    assert_eq!(broker.store_stats().events, 0);
    let stats = broker.stats();
    assert_eq!((stats.is_running, stats.accepted, stats.rejected), (false, 0, 4));
}

#[test]
fn before_start_events_are_refused_and_subscriptions_are_accepted() {
    let broker = Broker::builder().build().expect("a broker");
    let (sender, received) = channel();
    broker.subscribe("a.**", move |delivery| sender.send(delivery.event().id().clone())).expect("a subscription");
    assert_gives_every_event_back(&broker);

    broker.start().expect("a running broker");
    assert!(broker.stats().is_running);
    let accepted = broker.publish(event("a.b.c")).expect("accepted");
    assert_eq!(accepted.deliveries, 1);
    assert_eq!(receive(&received, "the event"), accepted.id);
}

#[test]
fn after_stop_events_and_subscriptions_are_refused() {
    let broker = Broker::builder().start().expect("a running broker");
    broker.subscribe("*", |_| ()).expect("a subscription");
    assert!(broker.stop(PATIENCE).is_clean());
    assert_gives_every_event_back(&broker);
    assert_eq!(broker.subscribe("*", |_| ()), Err(SubscribeError::Stopped));
}

#[test]
fn a_refused_event_is_accepted_once_the_broker_runs() {
    let broker = Broker::builder().build().expect("a broker");
    let refused = broker.publish(event("a.b.c")).expect_err("not running");
    broker.start().expect("a running broker");
    let accepted = broker.publish(refused.into_event()).expect("accepted");
    assert!(!accepted.duplicate);
}

#[test]
fn starting_twice_is_an_error_and_changes_nothing() {
    let broker = Broker::builder().worker_count(2).max_workers(2).start().expect("a running broker");
    assert_eq!(broker.start(), Err(StartError::AlreadyRunning));
    let another_handle = broker.clone();
    assert_eq!(another_handle.start(), Err(StartError::AlreadyRunning));
    drop(another_handle);
    assert_eq!(broker.stats().workers, 2);
    broker.publish(event("a.b.c")).expect("the broker still runs");
}

#[test]
fn one_of_many_concurrent_starts_succeeds() {
    for _ in 0..20 {
        let broker = Broker::builder().worker_count(2).max_workers(2).build().expect("a broker");
        let starts: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| broker.start())).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(starts.iter().filter(|start| start.is_ok()).count(), 1, "{starts:?}");
        assert_eq!(starts.iter().filter(|start| **start == Err(StartError::AlreadyRunning)).count(), 3, "{starts:?}");
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

#[test]
fn starting_after_stop_is_an_error() {
    let ran = Broker::builder().start().expect("a running broker");
    ran.stop(PATIENCE);
    assert_eq!(ran.start(), Err(StartError::Stopped));

    let never_ran = Broker::builder().build().expect("a broker");
    assert!(never_ran.stop(PATIENCE).is_clean());
    assert_eq!(never_ran.start(), Err(StartError::Stopped));
    assert!(matches!(never_ran.publish(event("a")), Err(PublishError::NotRunning { .. })));
}
