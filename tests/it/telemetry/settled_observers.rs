//! `on_settled` observers receive each verdict exactly once and in time. They may panic and may use the broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eventbroker::{Broker, EventId, HandlerError, Outcome, Overflow, RetryPolicy, SubscribeOptions, Verdict};
use parking_lot::Mutex;

use crate::support::{Gate, PATIENCE, Settlements, event, in_time, wait_until};

#[test]
fn observers_receive_every_verdict_before_publish_sync_returns() {
    let broker = Broker::builder().retry_policy(RetryPolicy::fixed(1, Default::default())).start().expect("valid");
    let named = |name: &str| SubscribeOptions::new("x").name(name);
    broker.subscribe_with(named("done"), |_| ()).expect("valid");
    broker.subscribe_with(named("skipped"), |_| Outcome::Skip).expect("valid");
    broker.subscribe_with(named("permanent"), |_| Outcome::Permanent("never".into())).expect("valid");
    broker.subscribe_with(named("exhausted"), |_| Err::<(), _>("again")).expect("valid");
    broker
        .subscribe_with(named("recovered"), |it| if it.attempt() == 1 { Err("once") } else { Ok(()) })
        .expect("valid");
    let settlements = Settlements::of(&broker);
    for _ in 0..50 {
        let report = broker.publish_sync(event("x")).expect("room");
        let mut seen = settlements.so_far();
        assert!(seen.iter().all(|it| it.id == report.id));
        seen.sort_by(|left, right| left.name.cmp(&right.name));
        let seen: Vec<_> =
            seen.iter().map(|it| (it.name.as_str(), it.verdict, it.attempts, it.error.as_deref())).collect();
        let expected = [
            ("done", Verdict::Done, 1, None),
            ("exhausted", Verdict::Dead, 2, Some("again")),
            ("permanent", Verdict::Dead, 1, Some("never")),
            ("recovered", Verdict::Done, 2, None),
            ("skipped", Verdict::Skipped, 1, None),
        ];
        assert_eq!(seen, expected);
    }
}

/// The verdicts of each delivery, by event and subscription.
type Seen = HashMap<(EventId, String), Vec<Verdict>>;

#[test]
fn observers_receive_each_delivery_once_with_any_verdict() {
    let broker = Broker::builder().worker_count(3).start().expect("valid settings");
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let noted = Arc::clone(&seen);
    broker.on_settled(move |settled| {
        let key = (settled.event.id().clone(), settled.name.to_owned());
        noted.lock().entry(key).or_default().push(settled.verdict);
    });
    let blocking = |pattern: &str| SubscribeOptions::new(pattern).overflow(Overflow::Block(PATIENCE));
    broker.subscribe_with(blocking("x").name("good"), |_| ()).expect("valid");
    broker.subscribe_with(blocking("x").name("bad"), |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    let gate = Gate::closed();
    let pass = gate.clone();
    let dropping = SubscribeOptions::new("x").name("drops").ordered().queue_capacity(1).overflow(Overflow::DropOldest);
    let dropping = broker.subscribe_with(dropping, move |_| pass.pass()).expect("valid");
    const EVENTS: usize = 500;
    for _ in 0..EVENTS {
        broker.publish(event("x")).expect("room");
    }
    gate.wait_for_arrival();
    let unsubscriber = broker.clone();
    let waits = std::thread::spawn(move || unsubscriber.unsubscribe(dropping));
    wait_until("the subscription is removed", || broker.stats().subscriptions.len() == 2);
    gate.open();
    waits.join().expect("no panic").expect("subscribed");
    wait_until("all are settled", || broker.stats().in_flight == 0);
    assert!(broker.stop(PATIENCE).is_clean());

    let seen = seen.lock();
    assert_eq!(seen.len(), 3 * EVENTS);
    assert!(seen.values().all(|verdicts| verdicts.len() == 1), "one verdict per delivery");
    let count = |verdict| seen.values().filter(|verdicts| verdicts[0] == verdict).count() as u64;
    let totals = broker.stats().deliveries;
    assert_eq!((count(Verdict::Done), count(Verdict::Dead)), (totals.done, totals.dead));
    assert_eq!((count(Verdict::Dropped), count(Verdict::Cancelled)), (totals.dropped, totals.cancelled));
    assert!(totals.dropped > 0 && totals.dead == EVENTS as u64);
}

#[test]
fn a_panic_of_an_observer_affects_neither_workers_nor_other_observers() {
    let broker = Broker::builder().worker_count(1).start().expect("valid settings");
    let (before, after) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&before);
    broker.on_settled(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    broker.on_settled(|_| panic!("an observer fails"));
    let count = Arc::clone(&after);
    broker.on_settled(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    broker.subscribe("x", |_| ()).expect("valid");
    for round in 0..3 {
        // Once on the thread of the publisher, once on the only worker.
        assert!(broker.publish_sync(event("x")).expect("room").is_success());
        broker.publish(event("x")).expect("room");
        wait_until("both events are completed", || broker.stats().completed == 2 * (round + 1));
    }
    wait_until("the other observer has received all verdicts", || after.load(Ordering::SeqCst) == 6);
    assert_eq!(before.load(Ordering::SeqCst), 6);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn an_observer_may_use_the_broker() {
    let broker = Broker::builder().start().expect("valid settings");
    let observing = broker.clone();
    let published = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&published);
    broker.on_settled(move |settled| {
        if settled.name == "first" {
            assert!(observing.get(settled.event.id()).expect("no back end").is_some());
            assert_eq!(observing.dead_letter_count().expect("the back end answers"), 1);
            observing.publish(event("second")).expect("room");
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let failing = SubscribeOptions::new("x").name("first");
    broker.subscribe_with(failing, |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    broker.subscribe("second", |_| ()).expect("valid");
    broker.publish_sync(event("x")).expect("room");
    wait_until("both are settled", || broker.stats().in_flight == 0 && broker.stats().deliveries.done == 1);
    assert_eq!(published.load(Ordering::SeqCst), 1);
    // The observer holds a handle of its own, so no drop stops the broker.
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn an_observer_may_unsubscribe_the_subscription_of_the_verdict() {
    // On a worker, and on a lent thread: in both cases the call has not ended yet.
    for lent in [false, true] {
        let broker = Broker::builder().start().expect("valid settings");
        let observing = broker.clone();
        let answer = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&answer);
        broker.on_settled(move |settled| {
            let left = observing.unsubscribe(settled.subscription);
            noted.lock().get_or_insert(left);
        });
        broker.subscribe("x", |_| ()).expect("valid");
        let publisher = broker.clone();
        in_time("the publish", move || {
            if lent {
                assert!(publisher.publish_sync(event("x")).expect("room").is_success());
            } else {
                publisher.publish(event("x")).expect("room");
            }
        });
        wait_until("unsubscribe has returned in the observer", || answer.lock().is_some());
        assert!(answer.lock().as_ref().is_some_and(Result::is_ok));
        assert!(broker.stats().subscriptions.is_empty());
        let stopper = broker.clone();
        assert!(in_time("the stop", move || stopper.stop(PATIENCE)).is_clean());
    }
}
