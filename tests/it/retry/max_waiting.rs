//! `max_waiting`: waiting retries hold no place in the queue and no thread. At the bound a subscription counts as full,
//! and no waiting delivery is dropped.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use eventbroker::error::FullLimit;
use eventbroker::{
    Broker, Config, Delivery, ManualClock, Outcome, Overflow, PublishError, RetryPolicy, SubscribeOptions, Verdict,
};

use crate::support::{Gate, PATIENCE, Settlements, manual_clock, number_of, numbered, receive, stats_of, wait_until};

const DELAY: Duration = Duration::from_secs(10);

/// Events from this number on are handled; those below fail at their first attempt.
const FINE: u64 = 1_000;

fn handler(delivery: &Delivery<'_>) -> Outcome {
    if number_of(delivery.event()) < FINE && delivery.attempt() == 1 {
        return Outcome::Retry("not yet".into());
    }
    Outcome::Done
}

/// A broker with one subscription, of which at most `max_waiting` deliveries may wait.
fn scene(options: SubscribeOptions, max_waiting: usize) -> (Broker, ManualClock, Settlements) {
    let clock = manual_clock();
    let broker =
        Broker::builder().worker_count(1).max_workers(1).manual_clock(&clock).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = options.name("s").max_waiting(max_waiting).retry(RetryPolicy::fixed(1, DELAY));
    broker.subscribe_with(options, handler).expect("a subscription");
    (broker, clock, settlements)
}

/// Waits until `count` deliveries wait for a retry, and no other one is queued or running.
fn wait_for_waiting(broker: &Broker, count: u64) {
    wait_until("the retries wait", || {
        let stats = stats_of(broker, "s");
        (stats.waiting, stats.queued, stats.running) == (count, 0, 0)
    });
}

fn assert_full(outcome: Result<eventbroker::Accepted, PublishError>) {
    let refused = outcome.expect_err("max_waiting is reached");
    let is_expected =
        matches!(&refused, PublishError::Full { limit: FullLimit::Subscription { name, .. }, .. } if &**name == "s");
    assert!(is_expected, "{refused:?}");
}

#[test]
fn a_waiting_retry_holds_no_place_and_no_thread() {
    let (broker, clock, settlements) = scene(SubscribeOptions::new("*").concurrency(1).queue_capacity(1), 100);
    for number in 0..20 {
        // Each finds a free place, because its predecessors wait for their retry, and the only worker is free.
        broker.publish(numbered("a", number)).expect("accepted");
        wait_for_waiting(&broker, number + 1);
    }
    let stats = stats_of(&broker, "s");
    assert_eq!((stats.queued, stats.running, stats.waiting, stats.attempts), (0, 0, 20, 20));
    wait_until("the only worker is free", || broker.stats().workers_busy == 0);
    let fine = broker.publish(numbered("a", FINE)).expect("accepted");
    assert_eq!(settlements.next().id, fine.id);

    clock.advance(DELAY);
    assert!(settlements.take(20).iter().all(|it| (it.verdict, it.attempts) == (Verdict::Done, 2)));
    wait_for_waiting(&broker, 0);
}

#[test]
fn at_max_waiting_new_events_are_refused_until_a_retry_has_run() {
    let (broker, clock, settlements) = scene(SubscribeOptions::new("*"), 3);
    for number in 0..3 {
        broker.publish(numbered("a", number)).expect("accepted");
        wait_for_waiting(&broker, number + 1);
    }
    for _ in 0..3 {
        assert_full(broker.publish(numbered("a", FINE)));
    }
    assert_full(broker.publish_async(numbered("a", FINE)).map(|_| unreachable!("no room")));
    assert_eq!(settlements.so_far(), []);

    clock.advance(DELAY);
    assert!(settlements.take(3).iter().all(|it| (it.verdict, it.attempts) == (Verdict::Done, 2)));
    broker.publish(numbered("a", FINE)).expect("accepted");
    assert_eq!(settlements.next().verdict, Verdict::Done);
}

#[test]
fn events_parked_behind_a_waiting_retry_count_too() {
    let (broker, clock, settlements) = scene(SubscribeOptions::new("*").ordered().queue_capacity(1), 3);
    broker.publish(numbered("a", 0)).expect("accepted");
    wait_for_waiting(&broker, 1);
    for number in 1..3 {
        broker.publish(numbered("a", FINE + number)).expect("a free place, because the event before is parked");
        wait_for_waiting(&broker, number + 1);
    }
    assert_eq!(stats_of(&broker, "s").queued, 0);
    assert_full(broker.publish(numbered("a", FINE)));
    clock.advance(DELAY);
    assert_eq!(settlements.take(3).iter().map(|it| it.attempts).collect::<Vec<_>>(), [2, 1, 1]);
    wait_for_waiting(&broker, 0);
    broker.publish(numbered("a", FINE)).expect("accepted");
}

#[test]
fn an_event_queued_behind_a_waiting_key_waits_too_and_frees_its_place() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let options = SubscribeOptions::new("*").name("s").ordered().queue_capacity(2).retry(RetryPolicy::fixed(1, DELAY));
    let handler = move |delivery: &Delivery<'_>| {
        if number_of(delivery.event()) == 0 && delivery.attempt() == 1 {
            handler_gate.pass();
            return Outcome::Retry("not yet".into());
        }
        Outcome::Done
    };
    broker.subscribe_with(options, handler).expect("a subscription");
    for number in 0..3 {
        broker.publish(numbered("a", number)).expect("accepted");
        if number == 0 {
            gate.wait_for_arrival();
        }
    }
    assert_full(broker.publish(numbered("a", 3)));
    gate.open();
    wait_for_waiting(&broker, 3);
    for number in 3..6 {
        broker.publish(numbered("a", number)).expect("a free place, because the event before is parked");
        wait_for_waiting(&broker, number + 1);
    }
    assert_eq!(stats_of(&broker, "s").queued, 0);
    clock.advance(DELAY);
    assert!(settlements.take(6).iter().all(|it| it.verdict == Verdict::Done));
}

#[test]
fn a_blocking_publisher_waits_until_fewer_deliveries_wait() {
    let options = SubscribeOptions::new("*").overflow(Overflow::Block(1_000 * DELAY));
    let (broker, clock, settlements) = scene(options, 1);
    broker.publish(numbered("a", 0)).expect("accepted");
    wait_for_waiting(&broker, 1);
    let (sender, outcomes) = channel();
    let publisher = broker.clone();
    thread::spawn(move || sender.send(publisher.publish(numbered("a", FINE))));
    assert!(outcomes.recv_timeout(Duration::from_millis(50)).is_err(), "the subscription still counts as full");
    clock.advance(DELAY);
    receive(&outcomes, "an answer").expect("accepted");
    assert!(settlements.take(2).iter().all(|it| it.verdict == Verdict::Done));
    assert_eq!((broker.stats().accepted, broker.stats().rejected), (2, 0));
}

#[test]
fn a_dropping_policy_drops_one_event_per_new_one_and_no_waiting_retry() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let clock = manual_clock();
        let broker = Broker::builder().manual_clock(&clock).start().expect("a running broker");
        let settlements = Settlements::of(&broker);
        let gate = Gate::closed();
        let handler_gate = gate.clone();
        let options = SubscribeOptions::new("*").name("s").concurrency(1).max_waiting(1).queue_capacity(100);
        let held = move |delivery: &Delivery<'_>| {
            if number_of(delivery.event()) == FINE {
                handler_gate.pass();
            }
            handler(delivery)
        };
        let options = options.overflow(overflow).retry(RetryPolicy::fixed(1, DELAY));
        broker.subscribe_with(options, held).expect("a subscription");
        // The first event waits at the gate; behind it are one that fails and eleven that do not. After the first two
        // have run, one delivery waits.
        let mut ids = Vec::new();
        for number in [FINE, 0, FINE] {
            ids.push(broker.publish(numbered("a", number)).expect("accepted").id);
        }
        gate.wait_for_arrival();
        for number in 1..=10 {
            broker.publish(numbered("a", FINE + number)).expect("accepted");
        }
        gate.open_once();
        gate.wait_for_arrival();
        let stats = stats_of(&broker, "s");
        assert_eq!((stats.waiting, stats.queued, stats.running), (1, 10, 1));
        assert_eq!(settlements.next().id, ids[0]);

        for number in 11..=13 {
            broker.publish(numbered("a", FINE + number)).expect("accepted");
        }
        assert_eq!(stats_of(&broker, "s").deliveries.dropped, 3, "{overflow:?}");
        assert!(settlements.take(3).iter().all(|it| it.verdict == Verdict::Dropped && it.id != ids[1]));
        gate.open();
        assert_eq!(settlements.take(11).iter().filter(|it| it.verdict == Verdict::Done).count(), 11);
        clock.advance(DELAY);
        let last = settlements.next();
        assert_eq!((&last.id, last.verdict, last.attempts), (&ids[1], Verdict::Done, 2));
    }
}

#[test]
fn the_bound_of_the_broker_holds_for_subscriptions_without_their_own() {
    let clock = manual_clock();
    let mut config = Config::default();
    config.max_waiting = 1;
    config.retry_policy = RetryPolicy::fixed(1, DELAY);
    let broker = Broker::builder().config(config).manual_clock(&clock).start().expect("a running broker");
    broker.subscribe_with(SubscribeOptions::new("*").name("s"), handler).expect("a subscription");
    broker.publish(numbered("a", 0)).expect("accepted");
    wait_for_waiting(&broker, 1);
    assert_full(broker.publish(numbered("a", FINE)));
    clock.advance(DELAY);
    wait_for_waiting(&broker, 0);
    broker.publish(numbered("a", FINE)).expect("accepted");
}

#[test]
fn the_count_of_waiting_deliveries_is_plausible_at_every_moment() {
    const EVENTS: u64 = 4_000;
    let broker = Broker::builder().worker_count(2).start().expect("a running broker");
    // Keys whose head fails and is retried immediately, while further events arrive behind it.
    let options = SubscribeOptions::new("*").name("s").concurrency(2).queue_capacity(100_000);
    let options = options.retry(RetryPolicy::fixed(3, Duration::ZERO));
    broker
        .subscribe_with(options, |delivery| match delivery.attempt() {
            1 => Outcome::Retry("not yet".into()),
            _ => Outcome::Done,
        })
        .expect("a subscription");
    let seen: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..2)
            .map(|key: u64| {
                let broker = &broker;
                scope.spawn(move || {
                    for _ in 0..EVENTS {
                        broker.publish(crate::support::keyed("a", &key.to_string())).expect("a free place");
                    }
                })
            })
            .collect();
        while publishers.iter().any(|publisher| !publisher.is_finished()) {
            seen.lock().expect("no panic").insert(stats_of(&broker, "s").waiting);
        }
    });
    let most = seen.lock().expect("no panic").last().copied().unwrap_or(0);
    assert!(most <= 2 * EVENTS, "{most} deliveries were reported to wait");
    wait_until("all are handled", || broker.stats().completed == 2 * EVENTS);
    assert_eq!(stats_of(&broker, "s").waiting, 0);
    assert!(broker.stop(PATIENCE).is_clean());
}
