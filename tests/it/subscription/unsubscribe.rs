//! `unsubscribe` waits for the running call, cancels and counts waiting deliveries, and drops the handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use eventbroker::error::SubscribeError;
use eventbroker::{Broker, HandlerError, RetryPolicy, Status, SubscribeOptions, SubscriptionId, Verdict};
use parking_lot::Mutex;

use crate::support::{Gate, PATIENCE, Settlements, event, keyed, manual_clock, receive, wait_for_retries, wait_until};

#[test]
fn unsubscribe_returns_only_when_the_running_call_has_ended() {
    let broker = Broker::builder().start().expect("valid settings");
    let gate = Gate::closed();
    let (pass, ended) = (gate.clone(), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&ended);
    let id = broker
        .subscribe("x", move |_| {
            pass.pass();
            count.fetch_add(1, Ordering::SeqCst);
        })
        .expect("valid");
    broker.publish(event("x")).expect("room");
    gate.wait_for_arrival();
    let (unsubscriber, (sender, returned)) = (broker.clone(), channel());
    let seen = Arc::clone(&ended);
    thread::spawn(move || {
        let left = unsubscriber.unsubscribe(id);
        let _ = sender.send((left, seen.load(Ordering::SeqCst)));
    });
    // The subscription is removed before the call returns.
    wait_until("the subscription is removed", || broker.stats().subscriptions.is_empty());
    assert_eq!(broker.publish(event("x")).expect("room").deliveries, 0);
    assert!(returned.try_recv().is_err(), "the call still runs");
    gate.open();
    assert_eq!(receive(&returned, "the return of unsubscribe"), (Ok(0), 1));
}

#[test]
fn queued_deliveries_are_cancelled_and_counted() {
    let broker = Broker::builder().start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let id = broker.subscribe_with(SubscribeOptions::new("x").ordered(), move |_| pass.pass()).expect("valid");
    let settlements = Settlements::of(&broker);
    let running = broker.publish(event("x")).expect("room").id;
    gate.wait_for_arrival();
    let queued: Vec<_> = (0..5).map(|_| broker.publish(event("x")).expect("room").id).collect();
    let unsubscriber = broker.clone();
    let waits = thread::spawn(move || unsubscriber.unsubscribe(id));
    let mut cancelled = settlements.take(5);
    cancelled.sort_by(|left, right| left.id.cmp(&right.id));
    assert!(cancelled.iter().all(|it| it.verdict == Verdict::Cancelled && it.attempts == 0 && it.error.is_none()));
    assert_eq!(cancelled.into_iter().map(|it| it.id).collect::<Vec<_>>(), queued);
    gate.open();
    assert_eq!(settlements.next().id, running);
    assert_eq!(waits.join().expect("no panic"), Ok(0));
    let stats = broker.stats();
    assert_eq!((stats.deliveries.cancelled, stats.deliveries.done, stats.attempts), (5, 1, 1));
    assert_eq!((stats.accepted, stats.completed, stats.failed, stats.in_flight), (6, 6, 0, 0));
    let status = broker.get(&queued[0]).expect("no back end").expect("stored").status();
    assert_eq!(status, Status::Completed, "a cancelled delivery is not a failure");
}

#[test]
fn waiting_retries_and_events_parked_behind_them_are_cancelled() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("valid settings");
    let minute = Duration::from_secs(60);
    let options = |pattern| SubscribeOptions::new(pattern).retry(RetryPolicy::fixed(1, minute));
    let id = broker.subscribe_with(options("x"), |_| Err::<(), _>("no")).expect("valid");
    broker.subscribe_with(options("other"), |_| Err::<(), _>("no")).expect("valid");
    let settlements = Settlements::of(&broker);
    broker.publish(keyed("x", "k")).expect("room");
    broker.publish(event("other")).expect("room");
    wait_for_retries(&broker, 2, 2);
    broker.publish(keyed("x", "k")).expect("room");
    assert_eq!(broker.unsubscribe(id), Ok(0));
    let settled = settlements.take(2);
    assert!(settled.iter().all(|it| it.verdict == Verdict::Cancelled), "{settled:?}");
    // A retry of another subscription that is due at the same time: once it has run, the time of the cancelled ones is
    // over.
    clock.advance(minute);
    assert_eq!(settlements.next().event_type, "other");
    let stats = broker.stats();
    assert_eq!((stats.attempts, stats.in_flight, stats.dead_letters), (3, 0, 1));
    assert_eq!(stats.deliveries.cancelled, 2);
}

#[test]
fn a_call_that_fails_after_its_subscription_was_removed_is_cancelled() {
    let broker = Broker::builder().start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let id = broker
        .subscribe("x", move |_| {
            pass.pass();
            Err::<(), _>("no")
        })
        .expect("valid");
    let settlements = Settlements::of(&broker);
    broker.publish(event("x")).expect("room");
    gate.wait_for_arrival();
    let unsubscriber = broker.clone();
    let waits = thread::spawn(move || unsubscriber.unsubscribe(id));
    wait_until("the subscription is removed", || broker.stats().subscriptions.is_empty());
    gate.open();
    assert_eq!(waits.join().expect("no panic"), Ok(0));
    let settled = settlements.next();
    assert_eq!((settled.verdict, settled.attempts), (Verdict::Cancelled, 1));
    assert_eq!((broker.stats().in_flight, broker.dead_letter_count().expect("the back end answers")), (0, 0));
}

#[test]
fn inside_its_own_handler_unsubscribe_does_not_wait_and_returns_the_running_calls() {
    let broker = Broker::builder().worker_count(4).start().expect("valid settings");
    let own: Arc<Mutex<Option<SubscriptionId>>> = Arc::default();
    let gate = Gate::closed();
    let (sender, returned) = channel();
    let (me, pass) = (Arc::clone(&own), gate.clone());
    let handler = move |delivery: &eventbroker::Delivery<'_>| {
        pass.pass();
        let id = *me.lock();
        let answer = id.map(|id| delivery.broker().expect("the broker lives").unsubscribe(id));
        let _ = sender.send(answer);
    };
    let id = broker.subscribe_with(SubscribeOptions::new("x").concurrency(2), handler).expect("valid");
    broker.publish(event("x")).expect("room");
    broker.publish(event("x")).expect("room");
    gate.wait_for_arrival();
    gate.wait_for_arrival();
    *own.lock() = Some(id);
    gate.open_once();
    let left = receive(&returned, "the first answer").expect("the id is known").expect("subscribed");
    assert_eq!(left, 2, "this call and the other one");
    gate.open();
    // In the other call the subscription is already unknown.
    assert!(receive(&returned, "the second answer").expect("the id is known").is_err());
    assert_eq!(broker.publish(event("x")).expect("room").deliveries, 0);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn inside_the_handler_of_another_subscription_unsubscribe_does_not_wait() {
    let broker = Broker::builder().worker_count(4).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let held = broker.subscribe("held", move |_| pass.pass()).expect("valid");
    broker.publish(event("held")).expect("room");
    gate.wait_for_arrival();
    let (sender, returned) = channel();
    broker
        .subscribe("x", move |delivery| {
            let _ = sender.send(delivery.broker().expect("the broker lives").unsubscribe(held));
        })
        .expect("valid");
    broker.publish(event("x")).expect("room");
    assert_eq!(receive(&returned, "the answer"), Ok(1));
    gate.open();
    // The same in a handler on a lent thread.
    let id = broker.subscribe("y", |_| ()).expect("valid");
    broker
        .subscribe("z", move |it| assert!(it.broker().expect("the broker lives").unsubscribe(id).is_ok()))
        .expect("valid");
    assert!(broker.publish_sync(event("z")).expect("room").is_success());
}

#[test]
fn unsubscribe_drops_the_handler_s_values_and_frees_the_name() {
    let broker = Broker::builder().start().expect("valid settings");
    let value = Arc::new(());
    for dedicated in [false, true] {
        let captured = Arc::clone(&value);
        let options = SubscribeOptions::new("x.*").name("mailer");
        let options = if dedicated { options.dedicated(2) } else { options };
        let handler = move |_: &eventbroker::Delivery<'_>| drop(Arc::clone(&captured));
        let id = broker.subscribe_with(options.clone(), handler.clone()).expect("the name is free");
        let taken = broker.subscribe_with(options, handler).expect_err("the name is taken");
        assert!(matches!(taken, SubscribeError::NameTaken { name, .. } if name == "mailer"));
        for number in 0..20 {
            broker.publish(event(&format!("x.{number}"))).expect("room");
        }
        broker.publish_sync(event("x.sync")).expect("room");
        wait_until("all are settled", || broker.stats().in_flight == 0);
        assert_eq!(broker.unsubscribe(id), Ok(0));
        wait_until("the handler is dropped", || Arc::strong_count(&value) == 1);
    }
}

#[test]
fn an_unknown_id_is_an_error_that_names_it() {
    let broker = Broker::builder().start().expect("valid settings");
    let mut ids: Vec<SubscriptionId> = (0..9).map(|_| broker.subscribe("x", |_| ()).expect("valid")).collect();
    let last = ids.pop().expect("nine");
    assert_eq!(last.to_string(), "sub-9");
    assert_eq!(broker.unsubscribe(last), Ok(0));
    let unknown = broker.unsubscribe(last).expect_err("unknown");
    assert_eq!(unknown.to_string(), "subscription not found: sub-9");
    assert_eq!(unknown.id, last);
    assert_eq!(broker.publish(event("x")).expect("room").deliveries, 8, "the other subscriptions remain");
}

#[test]
fn the_dead_letters_of_a_removed_subscription_are_kept() {
    let broker = Broker::builder().start().expect("valid settings");
    let id = broker.subscribe("x", |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    broker.publish_sync(event("x")).expect("room");
    broker.unsubscribe(id).expect("subscribed");
    let stats = broker.stats();
    assert_eq!((stats.dead_letters, stats.deliveries.dead, stats.attempts), (1, 1, 1));
}
