//! Order within one instance.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use eventbroker::{Event, RetryPolicy, Source};

use crate::Subject;
use crate::kit::{Ids, PATIENCE, finish, listen_with, named, number_of, numbered, publish_all, start};

/// An ordered subscription handles events of all types in publish order, even if some take longer than others.
pub fn an_ordered_subscription_keeps_publish_order(subject: &dyn Subject) {
    let broker = start(subject);
    let (handled, order) = channel();
    broker
        .subscribe_with(named("all", "order.*").ordered(), move |delivery| {
            if number_of(delivery.event()).is_multiple_of(7) {
                // Long enough for a later event to overtake this one, if the order were not kept.
                thread::park_timeout(Duration::from_millis(2));
            }
            // The receiver is dropped when the case has ended.
            let _ = handled.send(delivery.event().clone());
        })
        .expect("a subscription");
    let sent: Vec<Event> = (0..100).map(|number| numbered(&format!("order.t{}", number % 16), number)).collect();
    let mut missing = publish_all(&broker, sent);
    let mut numbers = Vec::new();
    while !missing.is_empty() {
        let event = order.recv_timeout(PATIENCE).expect("the handler is called");
        if missing.remove(event.id()) {
            numbers.push(number_of(&event));
        }
    }
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    finish(&broker);
    assert!(!subject.abilities().exact || order.try_iter().count() == 0, "some were delivered twice");
}

/// Events of a key are handled in publish order although some first attempts fail. Different keys are independent.
pub fn order_per_key_is_kept(subject: &dyn Subject) {
    const KEYS: usize = 8;
    let broker = start(subject);
    let failed = Mutex::new(HashSet::new());
    let options = named("all", "keyed.*").concurrency(4).retry(RetryPolicy::fixed(3, Duration::from_millis(2)));
    let (handled, order) = channel();
    listen_with(&broker, options, move |delivery| {
        let event = delivery.event();
        let first_time = failed.lock().expect("no panic under the lock").insert(event.id().clone());
        if first_time && number_of(event).is_multiple_of(7) {
            return Err("later");
        }
        // The receiver is dropped when the case has ended.
        let _ = handled.send(event.clone());
        Ok(())
    });
    let mut expected: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut ids = Ids::new();
    for number in 0..200 {
        let key = format!("key {}", number % KEYS);
        let builder = Event::builder(Source::System, "keyed.it").key(&key).payload(&number);
        ids.extend(publish_all(&broker, [builder.build().expect("a valid event")]));
        expected.entry(key).or_default().push(number);
    }
    let mut handled: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    while !ids.is_empty() {
        let event = order.recv_timeout(PATIENCE).expect("the handler is called");
        if ids.remove(event.id()) {
            handled.entry(event.key().expect("a key").to_owned()).or_default().push(number_of(&event));
        }
    }
    assert_eq!(handled, expected);
    finish(&broker);
}

/// Events published while a subscription ends keep their order for the next one of its name.
pub fn the_next_subscription_keeps_the_order(subject: &dyn Subject) {
    const ROUNDS: usize = 12;
    const EVENTS: usize = 20;
    let broker = start(subject);
    let subscribe = || listen_with(&broker, named("all", "next.*"), |_| ());
    let (id, _) = subscribe();
    broker.unsubscribe(id).expect("it is there");
    for round in 0..ROUNDS {
        let keyed = |number| Event::builder(Source::System, "next.it").key("one").payload(&number).build();
        let ids = publish_all(&broker, (0..EVENTS).map(|number| keyed(number).expect("a valid event")));
        let (id, calls) = subscribe();
        let numbers: Vec<usize> = calls.read(&ids).iter().map(number_of).collect();
        assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>(), "round {round}");
        broker.unsubscribe(id).expect("it is there");
    }
    finish(&broker);
}

/// While the first event of an ordered subscription waits for a retry, the second is not delivered.
pub fn a_waiting_retry_blocks_an_ordered_subscription(subject: &dyn Subject) {
    let broker = start(subject);
    let options = named("all", "hold.*").ordered().retry(RetryPolicy::fixed(3, Duration::from_millis(50)));
    let (_, calls) = listen_with(&broker, options, |delivery| {
        if number_of(delivery.event()) == 0 && delivery.attempt() <= 2 { Err("not yet") } else { Ok(()) }
    });
    publish_all(&broker, [numbered("hold.it", 0), numbered("hold.it", 1)]);
    let order: Vec<usize> = (0..4).map(|_| number_of(&calls.next())).collect();
    assert_eq!(order, [0, 0, 0, 1]);
    finish(&broker);
}
