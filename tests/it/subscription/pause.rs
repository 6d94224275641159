//! `pause`: no call begins until `resume`. Running calls go on, new events wait, order and bounds hold.

use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::error::UnknownSubscription;
use eventbroker::{Broker, Config, Delivery, HandlerError, PublishError, RetryPolicy, SubscribeOptions, Verdict};

use crate::support::{
    Gate, PATIENCE, Settlements, event, in_time, keyed, manual_clock, number_of, numbered, receive, stats_of,
    wait_for_retries, wait_until,
};

#[test]
fn running_calls_go_on_and_none_begins_until_resume() {
    let broker = Broker::builder().start().expect("valid settings");
    let (gate, (sender, calls)) = (Gate::closed(), channel());
    let pass = gate.clone();
    let options = SubscribeOptions::new("x").name("paused").concurrency(2);
    let id = broker
        .subscribe_with(options, move |delivery| {
            let _ = sender.send(number_of(delivery.event()));
            pass.pass();
        })
        .expect("valid");
    broker.subscribe("x", |_| ()).expect("valid");
    let settlements = Settlements::of(&broker);
    broker.publish(numbered("x", 0)).expect("room");
    gate.wait_for_arrival();
    assert_eq!(receive(&calls, "the first call"), 0);
    assert_eq!(broker.pause(id), Ok(1), "one call runs");
    assert!(stats_of(&broker, "paused").paused);
    for number in 1..=100 {
        broker.publish(numbered("x", number)).expect("room");
    }
    gate.open();
    // The other subscription has handled all its events, so the workers have polled the paused one.
    settlements.take(102);
    assert_eq!(calls.try_iter().count(), 0);
    assert_eq!((stats_of(&broker, "paused").queued, broker.pause(id)), (100, Ok(0)), "pausing twice changes nothing");
    assert_eq!(broker.resume(id), Ok(()));
    let mut came: Vec<u64> = (0..100).map(|_| receive(&calls, "a call")).collect();
    came.sort_unstable();
    assert_eq!(came, (1..=100).collect::<Vec<_>>());
    assert!(!stats_of(&broker, "paused").paused);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn order_holds_across_a_pause() {
    let broker = Broker::builder().start().expect("valid settings");
    let (sender, calls) = channel();
    let options = SubscribeOptions::new("x").concurrency(4);
    let id =
        broker.subscribe_with(options, move |delivery| _ = sender.send(number_of(delivery.event()))).expect("valid");
    let publish = |number: u64| {
        let event = eventbroker::Event::builder(eventbroker::Source::System, "x").key("k").payload(&number).build();
        broker.publish(event.expect("a valid event")).expect("room");
    };
    for round in 0..200 {
        publish(3 * round);
        broker.pause(id).expect("subscribed");
        publish(3 * round + 1);
        broker.resume(id).expect("subscribed");
        publish(3 * round + 2);
    }
    let came: Vec<u64> = (0..600).map(|_| receive(&calls, "a call")).collect();
    assert_eq!(came, (0..600).collect::<Vec<_>>());
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_paused_subscription_is_full_like_any_other() {
    let broker = Broker::builder().start().expect("valid settings");
    let id = broker.subscribe_with(SubscribeOptions::new("x").queue_capacity(2), |_| ()).expect("valid");
    broker.pause(id).expect("subscribed");
    broker.publish(event("x")).expect("room");
    broker.publish(event("x")).expect("room");
    let error = broker.publish(event("x")).expect_err("no room");
    assert!(matches!(error, PublishError::Full { .. }), "{error}");
    broker.resume(id).expect("subscribed");
    wait_until("a place is free", || broker.publish(event("x")).is_ok());
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_due_retry_waits_too() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("valid settings");
    let subscribe = |name: &str, delay: u64| {
        let (sender, attempts) = channel();
        let retry = RetryPolicy::fixed(1, Duration::from_secs(delay));
        let options = SubscribeOptions::new("x").name(name).retry(retry).dedicated(1);
        let failing_once = move |delivery: &Delivery<'_>| {
            let _ = sender.send(delivery.attempt());
            if delivery.attempt() == 1 { Err(HandlerError::retry("not yet")) } else { Ok(()) }
        };
        (broker.subscribe_with(options, failing_once).expect("valid"), attempts)
    };
    let ((id, paused), (_, other)) = (subscribe("paused", 1), subscribe("other", 2));
    broker.publish(event("x")).expect("room");
    wait_for_retries(&broker, 2, 2);
    broker.pause(id).expect("subscribed");
    // The timer enqueues the retries of both subscriptions.
    clock.advance(Duration::from_millis(1_500));
    clock.advance(Duration::from_secs(1));
    assert_eq!([receive(&other, "an attempt"), receive(&other, "an attempt")], [1, 2]);
    assert_eq!(paused.try_iter().collect::<Vec<_>>(), [1]);
    broker.resume(id).expect("subscribed");
    assert_eq!(receive(&paused, "the second attempt"), 2);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn publish_sync_waits_for_a_paused_subscription() {
    let mut config = Config::default();
    config.sync_timeout = Duration::from_millis(50);
    let broker = Broker::builder().config(config).start().expect("valid settings");
    let id = broker.subscribe("x", |_| ()).expect("valid");
    broker.pause(id).expect("subscribed");
    let report = broker.publish_sync(event("x")).expect("room");
    assert_eq!((report.settled.len(), report.open.len()), (0, 1));
    broker.resume(id).expect("subscribed");
    wait_until("it is handled", || broker.stats().completed == 1);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_stop_does_not_wait_for_paused_deliveries() {
    let broker = Broker::builder().start().expect("valid settings");
    let id = broker.subscribe("x", |_| ()).expect("valid");
    let settlements = Settlements::of(&broker);
    broker.pause(id).expect("subscribed");
    let waits = broker.publish(keyed("x", "k")).expect("room").id;
    // A stop waits that long for deliveries that can still run.
    let report = broker.stop(100 * PATIENCE);
    assert_eq!((report.abandoned.as_slice(), report.threads_left), ([waits].as_slice(), 0));
    assert_eq!(settlements.take(1)[0].verdict, Verdict::Cancelled);
}

#[test]
fn an_observer_may_ask_the_broker_while_a_stop_cancels_what_is_paused() {
    let broker = Broker::builder().start().expect("valid settings");
    let id = broker.subscribe("x", |_| ()).expect("valid");
    let (sender, seen) = channel();
    let asked = broker.clone();
    broker.on_settled(move |settled| {
        sender.send((settled.verdict, asked.stats().subscriptions.len())).expect("the test listens");
    });
    broker.pause(id).expect("it is there");
    broker.publish(event("x")).expect("room");
    in_time("the stop", move || broker.stop(PATIENCE));
    assert_eq!(seen.try_recv(), Ok((Verdict::Cancelled, 1)));
}

#[test]
fn an_unknown_subscription_is_an_error() {
    let broker = Broker::builder().start().expect("valid settings");
    let id = broker.subscribe("x", |_| ()).expect("valid");
    broker.unsubscribe(id).expect("subscribed");
    assert_eq!(
        (broker.pause(id), broker.resume(id)),
        (Err(UnknownSubscription { id }), Err(UnknownSubscription { id }))
    );
    assert!(broker.stop(PATIENCE).is_clean());
}
