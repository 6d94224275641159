//! Ordered subscriptions: one event at a time, in the order of publishing, retries included.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use eventbroker::{Broker, Delivery, Event, Outcome, Overflow, RetryPolicy, Source, SubscribeOptions, Verdict};

use crate::support::{PATIENCE, Settlements, manual_clock, number_of, numbered, stats_of, wait_until};

/// An event, with a key for some numbers.
fn any_event(number: u64) -> Event {
    let key = if number.is_multiple_of(3) { String::new() } else { format!("key {}", number % 3) };
    Event::builder(Source::System, "a").key(key).payload(&number).build().expect("a valid event")
}

#[test]
fn all_events_wait_behind_a_retry_and_other_subscriptions_go_on() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("*").name("ordered").ordered();
    broker
        .subscribe_with(options.retry(RetryPolicy::fixed(1, Duration::from_secs(1))), |delivery| {
            let fails = number_of(delivery.event()) == 0 && delivery.attempt() == 1;
            if fails { Outcome::Retry("not yet".into()) } else { Outcome::Done }
        })
        .expect("a subscription");
    broker.subscribe_with(SubscribeOptions::new("*").name("free"), |_| ()).expect("a subscription");
    let ids: Vec<_> = (0..10).map(|number| broker.publish(any_event(number)).expect("accepted").id).collect();
    assert!(settlements.take(10).iter().all(|it| it.name == "free"));
    wait_until("all wait", || stats_of(&broker, "ordered").waiting == 10);
    assert_eq!(stats_of(&broker, "ordered").attempts, 1);

    clock.advance(Duration::from_secs(1));
    let handled = settlements.take(10);
    assert!(handled.iter().map(|it| &it.id).eq(&ids));
    assert_eq!(handled.iter().map(|it| it.attempts).sum::<u32>(), 11);
}

#[test]
fn an_ordered_subscription_has_concurrency_one_whatever_the_option_says() {
    let broker = Broker::builder().build().expect("a broker");
    broker.subscribe_with(SubscribeOptions::new("*").ordered().concurrency(8), |_| ()).expect("a subscription");
    assert_eq!(broker.stats().subscriptions[0].concurrency, 1);
}

#[test]
fn under_load_the_order_of_each_publisher_is_kept() {
    const PUBLISHERS: u64 = 4;
    const EVENTS: u64 = 2_000;
    let broker = Broker::builder().worker_count(4).start().expect("a running broker");
    let handled: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (notes, running, overlap) = (Arc::clone(&handled), AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    let seen_overlap = Arc::clone(&overlap);
    let handler = move |delivery: &Delivery<'_>| {
        if running.swap(true, Ordering::SeqCst) {
            seen_overlap.store(true, Ordering::SeqCst);
        }
        let number = number_of(delivery.event());
        let fails = number.is_multiple_of(13) && delivery.attempt() == 1;
        if !fails {
            notes.lock().expect("no panic").push(number);
        }
        running.store(false, Ordering::SeqCst);
        if fails { Outcome::Retry("not yet".into()) } else { Outcome::Done }
    };
    let options = SubscribeOptions::new("a").ordered().queue_capacity(64).overflow(Overflow::Block(6 * PATIENCE));
    broker.subscribe_with(options.retry(RetryPolicy::fixed(1, Duration::ZERO)), handler).expect("a subscription");
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let broker = &broker;
            scope.spawn(move || {
                for number in 0..EVENTS {
                    broker.publish(any_event(publisher * EVENTS + number)).expect("accepted");
                }
            });
        }
    });
    wait_until("all are handled", || broker.stats().completed == PUBLISHERS * EVENTS);
    assert!(!overlap.load(Ordering::SeqCst), "two calls at once");
    let handled = handled.lock().expect("no panic");
    for publisher in 0..PUBLISHERS {
        let range = publisher * EVENTS..(publisher + 1) * EVENTS;
        assert!(handled.iter().copied().filter(|number| range.contains(number)).eq(range.clone()), "{publisher}");
    }
}

#[test]
fn a_dedicated_ordered_subscription_keeps_order() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("*").ordered().dedicated(3).queue_capacity(1_000);
    broker.subscribe_with(options, |_| ()).expect("a subscription");
    let ids: Vec<_> = (0..1_000).map(|number| broker.publish(numbered("a", number)).expect("accepted").id).collect();
    let handled = settlements.take(1_000);
    assert!(handled.iter().map(|it| &it.id).eq(&ids));
    assert!(handled.iter().all(|it| it.verdict == Verdict::Done));
}
