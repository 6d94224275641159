//! A panic of a handler is a failed attempt with the panic's message. The worker and all subscriptions go on.

use std::collections::HashMap;
use std::panic::panic_any;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use eventbroker::{Broker, Delivery, Event, EventId, RetryPolicy, Source, SubscribeOptions, Verdict};

use crate::support::{PATIENCE, Settlements, event, keyed, number_of, wait_until};

fn message_of(handler: impl Fn() + Send + Sync + 'static) -> Option<String> {
    let broker = Broker::builder().worker_count(1).max_workers(1).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("a").retry(RetryPolicy::none());
    broker.subscribe_with(options, move |_| handler()).expect("a subscription");
    broker.subscribe("b", |_| ()).expect("another subscription");
    broker.publish(event("a")).expect("accepted");
    let end = settlements.next();
    assert_eq!((end.verdict, end.attempts), (Verdict::Dead, 1));
    // The only worker survives.
    broker.publish(event("b")).expect("accepted");
    assert_eq!(settlements.next().verdict, Verdict::Done);
    assert!(broker.stop(PATIENCE).is_clean());
    end.error
}

#[test]
fn the_message_of_every_kind_of_panic_is_kept() {
    assert_eq!(message_of(|| panic!("a text")).as_deref(), Some("handler panicked: a text"));
    let number = std::hint::black_box(7);
    assert_eq!(message_of(move || panic!("number {number}")).as_deref(), Some("handler panicked: number 7"));
    assert_eq!(message_of(|| panic_any(String::from("a string"))).as_deref(), Some("handler panicked: a string"));
    let none: Option<u32> = std::hint::black_box(None);
    let expecting = move || _ = none.expect("there is one");
    assert_eq!(message_of(expecting).as_deref(), Some("handler panicked: there is one"));
    assert_eq!(message_of(|| panic_any(42_u64)).as_deref(), Some("handler panicked: (no message)"));
    assert_eq!(message_of(|| assert_eq!(std::hint::black_box(1), 2, "sums")).map(|it| it.contains("sums")), Some(true));
}

#[test]
fn a_panic_in_the_drop_of_the_panic_s_value_is_caught() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload, too");
        }
    }
    let message = message_of(|| panic_any(Bomb));
    assert_eq!(message.as_deref(), Some("handler panicked: (no message)"));
}

#[test]
fn a_panic_is_retried_like_any_error() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("*").retry(RetryPolicy::fixed(2, Duration::ZERO));
    broker
        .subscribe_with(options, |delivery| assert!(delivery.attempt() == 3, "attempt {}", delivery.attempt()))
        .expect("a subscription");
    broker.publish(event("a")).expect("accepted");
    let end = settlements.next();
    assert_eq!((end.verdict, end.attempts, end.error), (Verdict::Done, 3, None));
}

#[test]
fn a_panic_on_a_lent_thread_does_not_reach_the_publisher() {
    let broker = Broker::builder().start().expect("a running broker");
    let options = SubscribeOptions::new("*").retry(RetryPolicy::none());
    broker.subscribe_with(options, |_| -> () { panic!("handler bug") }).expect("a subscription");
    let report = broker.publish_sync(event("a")).expect("accepted");
    assert_eq!((report.is_success(), report.error()), (false, Some("handler panicked: handler bug")));
    // The thread no longer counts as one that runs a handler.
    assert!(broker.publish_sync(event("a")).is_ok());
}

#[test]
fn other_subscriptions_of_the_event_are_not_affected() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let bad = SubscribeOptions::new("a").name("bad").retry(RetryPolicy::fixed(1, Duration::ZERO));
    broker.subscribe_with(bad, |_| -> () { panic!("handler bug") }).expect("a subscription");
    broker.subscribe_with(SubscribeOptions::new("a").name("good"), |_| ()).expect("a subscription");
    for _ in 0..100 {
        broker.publish(event("a")).expect("accepted");
    }
    let verdicts = settlements.take(200);
    let count = |name, verdict, attempts| {
        verdicts.iter().filter(|it| (it.name.as_str(), it.verdict, it.attempts) == (name, verdict, attempts)).count()
    };
    assert_eq!((count("bad", Verdict::Dead, 2), count("good", Verdict::Done, 1)), (100, 100));
}

#[test]
fn a_panic_of_an_observer_is_caught() {
    let broker = Broker::builder().worker_count(1).max_workers(1).start().expect("a running broker");
    broker.on_settled(|_| panic!("observer bug"));
    let settlements = Settlements::of(&broker);
    broker.subscribe("*", |_| ()).expect("a subscription");
    for _ in 0..10 {
        broker.publish(event("a")).expect("accepted");
        assert_eq!(settlements.next().verdict, Verdict::Done);
    }
    assert!(broker.publish_sync(event("a")).expect("accepted").is_success());
}

#[test]
fn with_panics_in_one_percent_of_10_000_calls_every_verdict_is_right() {
    const EVENTS: u64 = 10_000;
    const WORKERS: usize = 4;
    const KEYS: u64 = 5;
    let broker = Broker::builder().worker_count(WORKERS).max_workers(WORKERS).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let handled: Arc<Mutex<HashMap<String, Vec<u64>>>> = Arc::default();
    let notes = Arc::clone(&handled);
    // One percent of the events panic: most of them once, ten always.
    let handler = move |delivery: &Delivery<'_>| {
        let number = number_of(delivery.event());
        if number % 100 == 50 && (delivery.attempt() == 1 || number % 1_000 == 50) {
            panic!("event {number}");
        }
        notes
            .lock()
            .expect("no panic")
            .entry(delivery.event().key().unwrap_or("").to_owned())
            .or_default()
            .push(number);
    };
    let options = SubscribeOptions::new("a").concurrency(WORKERS).queue_capacity(EVENTS as usize);
    broker.subscribe_with(options.retry(RetryPolicy::fixed(2, Duration::ZERO)), handler).expect("a subscription");
    // Half of the events have keys.
    let events: Vec<Event> = (0..EVENTS)
        .map(|number| {
            let key = if number % 2 == 0 { (number % KEYS).to_string() } else { String::new() };
            Event::builder(Source::System, "a").key(key).payload(&number).build().expect("a valid event")
        })
        .collect();
    let numbers: HashMap<EventId, u64> = events.iter().map(|it| (it.id().clone(), number_of(it))).collect();
    for event in events {
        broker.publish(event).expect("accepted");
    }
    for end in settlements.take(EVENTS as usize) {
        let number = numbers[&end.id];
        let expected = match number {
            _ if number % 1_000 == 50 => (Verdict::Dead, 3, Some(format!("handler panicked: event {number}"))),
            _ if number % 100 == 50 => (Verdict::Done, 2, None),
            _ => (Verdict::Done, 1, None),
        };
        assert_eq!((end.verdict, end.attempts, end.error), expected, "event {number}");
    }
    for (key, handled) in &*handled.lock().expect("no panic") {
        assert!(key.is_empty() || handled.is_sorted(), "key {key} out of order");
    }
    wait_until("all are settled", || broker.stats().in_flight == 0);
    let stats = broker.stats();
    let totals = stats.deliveries;
    assert_eq!((totals.done, totals.dead, totals.dropped, totals.cancelled), (9_990, 10, 0, 0));
    assert_eq!((stats.attempts, stats.retries, stats.dead_letters), (10_110, 110, 10));
    assert_eq!(stats.workers, WORKERS);
    assert!(every_worker_lives(&broker, WORKERS));
}

/// Whether `workers` calls run at once.
fn every_worker_lives(broker: &Broker, workers: usize) -> bool {
    let settlements = Settlements::of(broker);
    let together = Arc::new(Barrier::new(workers));
    let meet = move |_: &Delivery<'_>| {
        together.wait();
    };
    broker.subscribe_with(SubscribeOptions::new("meet").concurrency(workers), meet).expect("a subscription");
    for _ in 0..workers {
        broker.publish(event("meet")).expect("accepted");
    }
    settlements.take(workers).iter().all(|it| it.verdict == Verdict::Done)
}

#[test]
fn a_key_whose_handler_panics_is_not_blocked() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("a").retry(RetryPolicy::none());
    broker.subscribe_with(options, |_| -> () { panic!("handler bug") }).expect("a subscription");
    let ids: Vec<_> = (0..100).map(|_| broker.publish(keyed("a", "k")).expect("accepted").id).collect();
    assert!(settlements.take(100).iter().map(|it| &it.id).eq(&ids));
}
