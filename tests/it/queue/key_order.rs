//! Key order: a subscription handles the events of one key in the order of publishing, retries included. Other keys go
//! on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use eventbroker::{
    Broker, Delivery, Event, HandlerError, Outcome, Overflow, RetryPolicy, Source, SubscribeOptions, Verdict,
};

use crate::support::{Gate, PATIENCE, Settlements, manual_clock, number_of, stats_of, wait_for_retries, wait_until};

fn keyed_number(key: &str, number: u64) -> Event {
    Event::builder(Source::System, "a").key(key).payload(&number).build().expect("a valid event")
}

#[test]
fn events_behind_a_waiting_retry_wait_and_other_keys_go_on() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("*").name("s").retry(RetryPolicy::fixed(3, Duration::from_secs(1)));
    broker
        .subscribe_with(options, |delivery| {
            let fails = number_of(delivery.event()) == 1 && delivery.attempt() <= 2;
            if fails { Outcome::Retry("not yet".into()) } else { Outcome::Done }
        })
        .expect("a subscription");
    let publish = |key: &str, number| broker.publish(keyed_number(key, number)).expect("accepted").id;
    let failing = publish("k", 1);
    wait_until("the retry waits", || stats_of(&broker, "s").waiting == 1);
    let parked = [publish("k", 2), publish("k", 3)];
    let others = [publish("l", 4), publish("l", 5)];
    let unkeyed = broker.publish(crate::support::numbered("a", 6)).expect("accepted").id;

    let mut first: Vec<_> = settlements.take(3).into_iter().map(|it| it.id).collect();
    first.retain(|id| *id != unkeyed);
    assert_eq!(first, others);
    assert_eq!(stats_of(&broker, "s").waiting, 3);

    clock.advance(Duration::from_secs(1));
    wait_for_retries(&broker, 5, 3);
    let later = publish("k", 7);
    assert_eq!(settlements.so_far(), []);

    clock.advance(Duration::from_secs(1));
    let order: Vec<_> = settlements.take(4).into_iter().map(|it| (it.id, it.attempts)).collect();
    let [second, third] = parked;
    assert_eq!(order, [(failing, 3), (second, 1), (third, 1), (later, 1)]);
}

#[test]
fn a_dead_letter_does_not_block_its_key() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("a").retry(RetryPolicy::fixed(2, Duration::ZERO));
    broker
        .subscribe_with(options, |delivery| match number_of(delivery.event()) {
            0 => Err(HandlerError::permanent("never")),
            1 => Err(HandlerError::retry("not yet")),
            2 => panic!("handler bug"),
            3 => Err(HandlerError::skip()),
            _ => Ok(()),
        })
        .expect("a subscription");
    for number in 0..5 {
        broker.publish(keyed_number("k", number)).expect("accepted");
    }
    let verdicts: Vec<_> = settlements.take(5).into_iter().map(|it| (it.verdict, it.attempts)).collect();
    let dead = Verdict::Dead;
    assert_eq!(verdicts, [(dead, 1), (dead, 3), (dead, 3), (Verdict::Skipped, 1), (Verdict::Done, 1)]);
}

#[test]
fn different_keys_are_handled_in_parallel() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let together = Arc::new(Barrier::new(4));
    let handler = move |_: &Delivery<'_>| {
        together.wait();
    };
    broker.subscribe_with(SubscribeOptions::new("*").concurrency(4), handler).expect("a subscription");
    for key in ["k", "l", "m", "n"] {
        broker.publish(keyed_number(key, 0)).expect("accepted");
        broker.publish(keyed_number(key, 1)).expect("accepted");
    }
    assert!(settlements.take(8).iter().all(|it| it.verdict == Verdict::Done));
}

#[test]
fn a_busy_key_takes_one_permit_only() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let handler = move |delivery: &Delivery<'_>| {
        if delivery.event().key() == Some("busy") {
            handler_gate.pass();
        }
    };
    broker.subscribe_with(SubscribeOptions::new("*").concurrency(2), handler).expect("a subscription");
    for number in 0..20 {
        broker.publish(keyed_number("busy", number)).expect("accepted");
    }
    gate.wait_for_arrival();
    for number in 0..100 {
        broker.publish(keyed_number(&format!("other {}", number % 7), number)).expect("accepted");
        assert_eq!(settlements.next().verdict, Verdict::Done);
    }
    assert_eq!(gate.arrivals(), 0, "no second call of the busy key has begun");
    gate.open();
    settlements.take(20);
}

#[test]
fn each_subscription_keeps_its_own_order() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let held = SubscribeOptions::new("*").name("held");
    broker.subscribe_with(held, move |_| handler_gate.pass()).expect("a subscription");
    broker.subscribe_with(SubscribeOptions::new("*").name("free"), |_| ()).expect("a subscription");
    let ids: Vec<_> = (0..50).map(|number| broker.publish(keyed_number("k", number)).expect("accepted").id).collect();
    let free = settlements.take(50);
    assert!(free.iter().all(|it| it.name == "free"));
    assert!(free.iter().map(|it| &it.id).eq(&ids));
    gate.open();
    assert!(settlements.take(50).iter().map(|it| &it.id).eq(&ids));
}

/// Publishes events of several keys, each key from one of several threads. Checks the order of each key, and that no
/// two calls of a key overlapped.
fn stress(policy: RetryPolicy, concurrency: usize, dedicated: bool, overflow: Overflow) {
    const PUBLISHERS: u64 = 4;
    const KEYS: u64 = 4;
    const EVENTS: u64 = 1_500;
    #[derive(Default)]
    struct Seen {
        handled: Mutex<HashMap<String, Vec<u64>>>,
        running: Mutex<HashMap<String, bool>>,
        overlaps: AtomicU64,
    }
    let broker = Broker::builder().worker_count(4).start().expect("a running broker");
    let seen = Arc::new(Seen::default());
    let notes = Arc::clone(&seen);
    let handler = move |delivery: &Delivery<'_>| {
        let (key, number) = (delivery.event().key().expect("a key").to_owned(), number_of(delivery.event()));
        if notes.running.lock().expect("no panic").insert(key.clone(), true) == Some(true) {
            notes.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        // One in seven fails once, one in 61 twice, one in 101 permanently.
        let failures = if number % 61 == 0 { 2 } else { u32::from(number % 7 == 0) };
        let outcome = match delivery.attempt() {
            _ if number % 101 == 100 => Outcome::Permanent("never".into()),
            attempt if attempt <= failures => Outcome::Retry("not yet".into()),
            _ => Outcome::Done,
        };
        if matches!(outcome, Outcome::Done | Outcome::Permanent(_)) {
            notes.handled.lock().expect("no panic").entry(key.clone()).or_default().push(number);
        }
        notes.running.lock().expect("no panic").insert(key, false);
        outcome
    };
    let options = SubscribeOptions::new("a").queue_capacity(256).retry(policy).overflow(overflow);
    let options = if dedicated { options.dedicated(concurrency) } else { options.concurrency(concurrency) };
    broker.subscribe_with(options, handler).expect("a subscription");
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let broker = &broker;
            scope.spawn(move || {
                for number in 0..EVENTS {
                    let event = keyed_number(&format!("{publisher}/{}", number % KEYS), number);
                    if number % 50 == 0 {
                        broker.publish_sync(event).expect("accepted");
                    } else {
                        broker.publish(event).expect("accepted");
                    }
                }
            });
        }
    });
    wait_until("all are settled", || broker.stats().in_flight == 0);
    let handled = seen.handled.lock().expect("no panic");
    assert_eq!(handled.len() as u64, PUBLISHERS * KEYS);
    for (key, numbers) in &*handled {
        let first = key[key.len() - 1..].parse().expect("a number");
        assert!(numbers.iter().copied().eq((first..EVENTS).step_by(KEYS as usize)), "{key}: {numbers:?}");
    }
    assert_eq!(seen.overlaps.load(Ordering::SeqCst), 0, "two calls of a key at once");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn order_holds_under_load_with_immediate_retries() {
    let block = Overflow::Block(6 * PATIENCE);
    stress(RetryPolicy::fixed(3, Duration::ZERO), 4, false, block);
    stress(RetryPolicy::fixed(3, Duration::ZERO), 3, true, block);
}

#[test]
fn order_holds_under_load_with_delayed_retries() {
    stress(RetryPolicy::fixed(3, Duration::from_micros(300)), 4, false, Overflow::Block(6 * PATIENCE));
}
