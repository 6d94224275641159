//! `unsubscribe` waits for the running call, cancels and counts what waits, and lets go of the handler.

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
fn it_returns_only_when_the_running_call_has_ended() {
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
    // The subscription is gone for everybody else long before the call returns.
    wait_until("it is removed", || broker.stats().subscriptions.is_empty());
    assert_eq!(broker.publish(event("x")).expect("room").deliveries, 0);
    assert!(returned.try_recv().is_err(), "the call still runs");
    gate.open();
    assert_eq!(receive(&returned, "the return of unsubscribe"), (Ok(0), 1));
}

#[test]
fn what_is_queued_is_cancelled_and_counted() {
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
    let status = broker.get(&queued[0]).expect("no back end").expect("it is in the store").status();
    assert_eq!(status, Status::Completed, "a cancelled delivery is no failure");
}

#[test]
fn waiting_retries_and_what_is_parked_behind_them_are_cancelled() {
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
    // A retry that is due at the same time shows that their time has come and gone.
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
    wait_until("it is removed", || broker.stats().subscriptions.is_empty());
    gate.open();
    assert_eq!(waits.join().expect("no panic"), Ok(0));
    let settled = settlements.next();
    assert_eq!((settled.verdict, settled.attempts), (Verdict::Cancelled, 1));
    assert_eq!((broker.stats().in_flight, broker.dead_letter_count().expect("the back end answers")), (0, 0));
}

#[test]
fn inside_its_own_handler_it_does_not_wait_and_says_how_many_run() {
    let broker = Broker::builder().worker_count(4).start().expect("valid settings");
    let own: Arc<Mutex<Option<SubscriptionId>>> = Arc::default();
    let gate = Gate::closed();
    let (sender, returned) = channel();
    let (me, pass) = (Arc::clone(&own), gate.clone());
    let handler = move |delivery: &eventbroker::Delivery<'_>| {
        pass.pass();
        let id = *me.lock();
        let answer = id.map(|id| delivery.broker().expect("it lives").unsubscribe(id));
        let _ = sender.send(answer);
    };
    let id = broker.subscribe_with(SubscribeOptions::new("x").concurrency(2), handler).expect("valid");
    broker.publish(event("x")).expect("room");
    broker.publish(event("x")).expect("room");
    gate.wait_for_arrival();
    gate.wait_for_arrival();
    *own.lock() = Some(id);
    gate.open_once();
    let left = receive(&returned, "the first answer").expect("it has an id").expect("it was there");
    assert_eq!(left, 2, "this call and the other one");
    gate.open();
    // The other call finds that it is gone already.
    assert!(receive(&returned, "the second answer").expect("it has an id").is_err());
    assert_eq!(broker.publish(event("x")).expect("room").deliveries, 0);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn inside_the_handler_of_another_subscription_it_does_not_wait() {
    let broker = Broker::builder().worker_count(4).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let held = broker.subscribe("held", move |_| pass.pass()).expect("valid");
    broker.publish(event("held")).expect("room");
    gate.wait_for_arrival();
    let (sender, returned) = channel();
    broker
        .subscribe("x", move |delivery| {
            let _ = sender.send(delivery.broker().expect("it lives").unsubscribe(held));
        })
        .expect("valid");
    broker.publish(event("x")).expect("room");
    assert_eq!(receive(&returned, "the answer"), Ok(1));
    gate.open();
    // The same on a thread that is inside of a handler because it was lent.
    let id = broker.subscribe("y", |_| ()).expect("valid");
    broker.subscribe("z", move |it| assert!(it.broker().expect("it lives").unsubscribe(id).is_ok())).expect("valid");
    assert!(broker.publish_sync(event("z")).expect("room").is_success());
}

#[test]
fn the_values_of_the_handler_are_dropped_and_its_name_is_free() {
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
    let unknown = broker.unsubscribe(last).expect_err("it is gone");
    assert_eq!(unknown.to_string(), "subscription not found: sub-9");
    assert_eq!(unknown.id, last);
    assert_eq!(broker.publish(event("x")).expect("room").deliveries, 8, "the others are still there");
}

#[test]
fn a_failing_handler_that_is_removed_leaves_its_dead_letters() {
    let broker = Broker::builder().start().expect("valid settings");
    let id = broker.subscribe("x", |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    broker.publish_sync(event("x")).expect("room");
    broker.unsubscribe(id).expect("it is there");
    let stats = broker.stats();
    assert_eq!((stats.dead_letters, stats.deliveries.dead, stats.attempts), (1, 1, 1));
}
