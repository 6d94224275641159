//! A publish inside a handler never blocks, whatever the overflow policy: it is accepted or refused immediately, and no
//! event is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbroker::{Broker, Delivery, Overflow, PublishError, SubscribeOptions};

use crate::support::{Gate, PATIENCE, Settlements, event, number_of, numbered, wait_until};

const AN_HOUR: Duration = Duration::from_secs(3_600);

/// Each event publishes two of the next lower generation.
const GENERATIONS: u64 = 8;

/// Handlers that publish to each other: "ping" to "pong" and back.
fn circle(workers: usize, capacity: usize, overflow: Overflow, dropping: bool) {
    let what = format!("{workers} workers, {capacity} places, {overflow:?}");
    let broker = Broker::builder().worker_count(workers).max_workers(workers).start().expect("a running broker");
    let (accepted, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for (from, to) in [("ping", "pong"), ("pong", "ping")] {
        let (accepted, refused) = (Arc::clone(&accepted), Arc::clone(&refused));
        let handler = move |delivery: &Delivery<'_>| {
            let generation = number_of(delivery.event());
            let broker = delivery.broker().expect("the broker lives");
            for _ in 0..if generation > 0 { 2 } else { 0 } {
                match broker.publish(numbered(to, generation - 1)) {
                    Ok(_) => accepted.fetch_add(1, Ordering::SeqCst),
                    Err(PublishError::Full { .. }) => refused.fetch_add(1, Ordering::SeqCst),
                    Err(other) => panic!("{other:?}"),
                };
            }
        };
        let options = SubscribeOptions::new(from).concurrency(workers).queue_capacity(capacity).overflow(overflow);
        broker.subscribe_with(options, handler).expect("a subscription");
    }
    broker.publish(numbered("ping", GENERATIONS)).expect("accepted");
    accepted.fetch_add(1, Ordering::SeqCst);
    wait_until(&format!("{what}: all are settled"), || {
        let stats = broker.stats();
        stats.in_flight == 0 && stats.workers_busy == 0
    });

    let (accepted, refused) = (accepted.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.rejected), (accepted, refused), "{what}");
    assert_eq!(stats.deliveries.done + stats.deliveries.dropped, accepted, "{what}");
    assert_eq!(stats.attempts, stats.deliveries.done, "{what}");
    if dropping {
        assert_eq!(refused, 0, "{what}");
    } else {
        assert_eq!(stats.deliveries.dropped, 0, "{what}");
    }
    assert!(broker.stop(PATIENCE).is_clean(), "{what}");
}

#[test]
fn handlers_that_publish_to_each_other_s_full_queues_do_not_block() {
    for workers in 1..=4 {
        for capacity in [1, 2, 3, 5, 8] {
            circle(workers, capacity, Overflow::Reject, false);
            circle(workers, capacity, Overflow::Block(AN_HOUR), false);
            circle(workers, capacity, Overflow::DropOldest, true);
            circle(workers, capacity, Overflow::DropNewest, true);
        }
    }
}

#[test]
fn a_publish_inside_a_handler_is_refused_where_others_would_wait() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let tight = SubscribeOptions::new("tight").concurrency(1).queue_capacity(1).overflow(Overflow::Block(AN_HOUR));
    broker.subscribe_with(tight, move |_| handler_gate.pass()).expect("a subscription");
    let forms = |delivery: &Delivery<'_>| {
        let broker = delivery.broker().expect("the broker lives");
        let refusals = [
            broker.publish(event("tight")).expect_err("full"),
            broker.publish_async(event("tight")).map(|receipt| receipt.id().clone()).expect_err("full"),
            broker.publish_sync(event("tight")).expect_err("full"),
            broker.publish_batch([event("tight")]).remove(0).expect_err("full"),
        ];
        assert!(refusals.iter().all(PublishError::is_full), "{refusals:?}");
    };
    broker.subscribe("try", forms).expect("a subscription");
    broker.publish(event("tight")).expect("accepted");
    gate.wait_for_arrival();
    broker.publish(event("tight")).expect("accepted");

    broker.publish(event("try")).expect("accepted");
    let tried = settlements.next();
    assert_eq!((tried.event_type.as_str(), tried.attempts, tried.error), ("try", 1, None));
    // The same in a call on a lent thread.
    assert!(broker.publish_sync(event("try")).expect("accepted").is_success());
    assert_eq!(broker.stats().rejected, 8);
    gate.open();
}

#[test]
fn a_publish_inside_a_handler_of_another_broker_does_not_wait() {
    let (full, other) = (Broker::builder().build().expect("a broker"), Broker::builder().build().expect("a broker"));
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let tight = SubscribeOptions::new("*").concurrency(1).queue_capacity(1).overflow(Overflow::Block(AN_HOUR));
    full.subscribe_with(tight, move |_| handler_gate.pass()).expect("a subscription");
    full.start().expect("a running broker");
    other.start().expect("a running broker");
    full.publish(event("running")).expect("accepted");
    gate.wait_for_arrival();
    full.publish(event("queued")).expect("accepted");

    let settlements = Settlements::of(&other);
    let publisher = full.clone();
    other
        .subscribe("*", move |_| assert!(publisher.publish(event("refused")).expect_err("full").is_full()))
        .expect("a subscription");
    other.publish(event("try")).expect("accepted");
    let tried = settlements.next();
    assert_eq!((tried.attempts, tried.error), (1, None));
    assert_eq!(full.stats().rejected, 1);
    gate.open();
}

#[test]
fn a_handler_may_publish_to_its_own_ordered_subscription() {
    let broker = Broker::builder().worker_count(1).max_workers(1).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let handler = |delivery: &Delivery<'_>| {
        let number = number_of(delivery.event());
        if number > 0 {
            delivery.broker().expect("the broker lives").publish(numbered("a", number - 1)).expect("accepted");
        }
    };
    broker.subscribe_with(SubscribeOptions::new("a").ordered().queue_capacity(1), handler).expect("a subscription");
    broker.publish(numbered("a", 500)).expect("accepted");
    settlements.take(501);
    assert_eq!(broker.stats().completed, 501);
}
