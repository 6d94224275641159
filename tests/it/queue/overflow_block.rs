//! The policy `Block`: a publisher waits for a place, but no longer than the policy's patience.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use eventbroker::error::FullLimit;
use eventbroker::{Broker, BrokerBuilder, Overflow, PublishError, SubscribeOptions, Verdict};

use crate::support::{Gate, PATIENCE, Settlements, event, manual_clock, receive, wait_until};

/// A broker whose only subscription, "tight", is full: one call waits at the gate, one event is queued.
fn full(builder: BrokerBuilder, patience: Duration) -> (Broker, Gate, Settlements) {
    let broker = builder.start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    let options = SubscribeOptions::new("*").name("tight").concurrency(1).queue_capacity(1);
    let handler_gate = gate.clone();
    broker
        .subscribe_with(options.overflow(Overflow::Block(patience)), move |_| handler_gate.pass())
        .expect("a subscription");
    broker.publish(event("running")).expect("accepted");
    gate.wait_for_arrival();
    broker.publish(event("queued")).expect("accepted");
    (broker, gate, settlements)
}

#[test]
fn a_publisher_is_refused_after_its_patience_and_not_before() {
    let patience = Duration::from_secs(60);
    let clock = manual_clock();
    let (broker, gate, settlements) = full(Broker::builder().manual_clock(&clock), patience);
    let (sender, outcomes) = channel();
    let (publisher, publishers_clock) = (broker.clone(), clock.clone());
    let thread = thread::spawn(move || {
        let began = publishers_clock.elapsed();
        let outcome = publisher.publish(event("third"));
        sender.send((outcome, publishers_clock.elapsed() - began)).expect("received");
    });
    let (outcome, waited) = loop {
        match outcomes.recv_timeout(Duration::from_millis(2)) {
            Ok(answer) => break answer,
            Err(RecvTimeoutError::Timeout) => clock.advance(Duration::from_secs(1)),
            Err(RecvTimeoutError::Disconnected) => panic!("the publishing thread has ended"),
        }
    };
    let refused = outcome.expect_err("no room");
    let expected = FullLimit::Subscription { name: "tight".into(), capacity: 1 };
    assert!(matches!(&refused, PublishError::Full { limit, .. } if *limit == expected), "{refused:?}");
    assert!(waited >= patience, "refused after {waited:?}");
    thread.join().expect("no panic");
    gate.open();
    assert!(settlements.take(2).iter().all(|it| it.verdict == Verdict::Done));
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.rejected, stats.deliveries.dropped), (2, 1, 0));
}

#[test]
fn without_patience_a_publisher_is_refused_immediately() {
    let clock = manual_clock();
    let (broker, gate, _settlements) = full(Broker::builder().manual_clock(&clock), Duration::ZERO);
    let (sender, outcomes) = channel();
    let publisher = broker.clone();
    thread::spawn(move || sender.send(publisher.publish(event("third"))));
    assert!(receive(&outcomes, "an answer").expect_err("no room").is_full());
    assert_eq!(broker.stats().rejected, 1);
    gate.open();
}

#[test]
fn a_waiting_publisher_is_accepted_as_soon_as_a_place_is_free() {
    // The clock stands still, so no patience ends.
    let (broker, gate, settlements) = full(Broker::builder().manual_clock(&manual_clock()), Duration::MAX);
    let (sender, outcomes) = channel();
    for _ in 0..3 {
        let (publisher, sender) = (broker.clone(), sender.clone());
        thread::spawn(move || sender.send(publisher.publish(event("later"))));
    }
    assert!(outcomes.recv_timeout(Duration::from_millis(50)).is_err(), "no place is free yet");
    gate.open();
    for _ in 0..3 {
        assert!(!receive(&outcomes, "an answer").expect("accepted").duplicate);
    }
    assert!(settlements.take(5).iter().all(|it| it.verdict == Verdict::Done));
}

#[test]
fn publishers_that_compete_for_places_in_several_queues_are_all_accepted() {
    const PUBLISHERS: u64 = 4;
    const EVENTS: u64 = 2_000;
    let broker = Broker::builder().start().expect("a running broker");
    let block = Overflow::Block(6 * PATIENCE);
    for (pattern, capacity) in [("a.*", 1), ("*", 2), ("a.b", 3)] {
        let options = SubscribeOptions::new(pattern).queue_capacity(capacity).overflow(block);
        broker.subscribe_with(options, |_| ()).expect("a subscription");
    }
    thread::scope(|scope| {
        for _ in 0..PUBLISHERS {
            scope.spawn(|| {
                for _ in 0..EVENTS {
                    broker.publish(event("a.b")).expect("accepted");
                }
            });
        }
    });
    wait_until("all are handled", || broker.stats().completed == PUBLISHERS * EVENTS);
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.rejected, stats.deliveries.done), (8_000, 0, 24_000));
}

#[test]
fn publish_sync_waits_for_a_place_too() {
    let (broker, gate, settlements) = full(Broker::builder(), 6 * PATIENCE);
    let (sender, outcomes) = channel();
    let publisher = broker.clone();
    thread::spawn(move || sender.send(publisher.publish_sync(event("third"))));
    assert!(outcomes.recv_timeout(Duration::from_millis(50)).is_err(), "no place is free yet");
    gate.open();
    assert!(receive(&outcomes, "a report").expect("accepted").is_success());
    assert_eq!(settlements.take(3).len(), 3);
    assert_eq!(broker.stats().rejected, 0);
}
