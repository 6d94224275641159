//! `max_in_flight` bounds the open events: beyond it every publish is refused until some are settled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use eventbroker::error::FullLimit;
use eventbroker::{Broker, Outcome, Overflow, PublishError, RetryPolicy, SubscribeOptions, Verdict};

use crate::support::{Gate, Settlements, event, manual_clock, wait_until};

fn is_in_flight_limit(refused: &PublishError, expected: u64) -> bool {
    matches!(refused, PublishError::Full { limit: FullLimit::InFlight { max }, .. } if *max == expected)
}

#[test]
fn every_form_of_publish_is_refused_at_the_bound_until_an_event_is_settled() {
    let broker = Broker::builder().max_in_flight(3).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    broker.subscribe("held", move |_| handler_gate.pass()).expect("a subscription");
    for _ in 0..3 {
        broker.publish(event("held")).expect("accepted");
    }
    let sent = event("unheard");
    let refusals = [
        broker.publish(sent.clone()).expect_err("full"),
        broker.publish_async(sent.clone()).map(|receipt| receipt.id().clone()).expect_err("full"),
        broker.publish_sync(sent.clone()).expect_err("full"),
        broker.publish_batch([sent.clone()]).remove(0).expect_err("full"),
    ];
    for refused in &refusals {
        assert!(is_in_flight_limit(refused, 3) && refused.is_full(), "{refused:?}");
        assert_eq!(refused.to_string(), "event queue is full: max_in_flight 3 events are not settled yet");
    }
    assert_eq!(broker.get(sent.id()).expect("the memory store"), None);
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.rejected, stats.in_flight), (3, 4, 3));

    for _ in 0..3 {
        gate.open_once();
        settlements.next();
        broker.publish(event("held")).expect("accepted after a verdict");
        assert!(is_in_flight_limit(&broker.publish(event("held")).expect_err("full again"), 3));
    }
    gate.open();
    settlements.take(3);
    assert!(!broker.publish(sent).expect("accepted").duplicate);
}

#[test]
fn the_policy_block_does_not_wait_at_this_bound() {
    let broker = Broker::builder().max_in_flight(1).start().expect("a running broker");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let options = SubscribeOptions::new("*").overflow(Overflow::Block(Duration::from_secs(3_600)));
    broker.subscribe_with(options, move |_| handler_gate.pass()).expect("a subscription");
    broker.publish(event("a")).expect("accepted");
    assert!(is_in_flight_limit(&broker.publish(event("a")).expect_err("full"), 1));
    gate.open();
}

#[test]
fn an_event_that_waits_for_a_retry_is_in_flight() {
    let clock = manual_clock();
    let broker = Broker::builder().max_in_flight(1).manual_clock(&clock).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("*").name("s").retry(RetryPolicy::fixed(1, Duration::from_secs(1)));
    broker
        .subscribe_with(options, |delivery| match delivery.attempt() {
            1 => Outcome::Retry("not yet".into()),
            _ => Outcome::Done,
        })
        .expect("a subscription");
    broker.publish(event("a")).expect("accepted");
    wait_until("the retry waits", || crate::support::stats_of(&broker, "s").waiting == 1);
    assert!(is_in_flight_limit(&broker.publish(event("a")).expect_err("full"), 1));
    clock.advance(Duration::from_secs(1));
    assert_eq!(settlements.next().verdict, Verdict::Done);
    assert!(!broker.publish(event("a")).expect("accepted").duplicate);
    wait_until("the retry waits", || crate::support::stats_of(&broker, "s").waiting == 1);
    clock.advance(Duration::from_secs(1));
}

#[test]
fn an_event_without_a_subscription_is_settled_immediately() {
    let broker = Broker::builder().max_in_flight(1).start().expect("a running broker");
    for _ in 0..100 {
        broker.publish(event("unheard")).expect("accepted");
    }
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.completed, stats.in_flight), (100, 100, 0));
}

#[test]
fn concurrent_publishers_exceed_the_bound_by_at_most_one_event_each() {
    const MAX: usize = 5;
    const PUBLISHERS: u64 = 4;
    for _ in 0..100 {
        let broker = Broker::builder().worker_count(2).max_in_flight(MAX).start().expect("a running broker");
        let gate = Gate::closed();
        let handler_gate = gate.clone();
        broker.subscribe("*", move |_| handler_gate.pass()).expect("a subscription");
        let (accepted, start) = (AtomicU64::new(0), std::sync::Barrier::new(PUBLISHERS as usize));
        thread::scope(|scope| {
            for _ in 0..PUBLISHERS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..10 {
                        match broker.publish(event("a")) {
                            Ok(_) => _ = accepted.fetch_add(1, Ordering::SeqCst),
                            Err(refused) => assert!(is_in_flight_limit(&refused, MAX as u64), "{refused:?}"),
                        }
                    }
                });
            }
        });
        let stats = broker.stats();
        assert_eq!((stats.accepted, stats.rejected), (accepted.into_inner(), 10 * PUBLISHERS - stats.accepted));
        // Publishes that were in progress when the bound was reached.
        let most = MAX as u64 + PUBLISHERS - 1;
        assert!((MAX as u64..=most).contains(&stats.in_flight), "{} are in flight", stats.in_flight);
        assert!(broker.publish(event("a")).is_err_and(|refused| is_in_flight_limit(&refused, MAX as u64)));
        gate.open();
    }
}
