//! Statistics: totals are exact once all events are settled, and consistent at every moment before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use eventbroker::SubscribeOptions;
use eventbroker::dead_letter::DeadLetterFilter;
use eventbroker::stats::SubscriptionStats;
use eventbroker::stats::{DeliveryTotals, Stats};
use eventbroker::{Broker, Event, HandlerError, Outcome, Overflow, RetryPolicy, Source};

use crate::support::{Gate, PATIENCE, event, in_time, number_of, numbered, wait_until};

fn of<'a>(stats: &'a Stats, name: &str) -> &'a SubscriptionStats {
    stats.subscriptions.iter().find(|it| &*it.name == name).expect("subscribed")
}

fn verdicts(totals: &DeliveryTotals) -> [u64; 5] {
    [totals.done, totals.skipped, totals.dead, totals.dropped, totals.cancelled]
}

#[test]
fn every_total_is_exact_after_concurrent_publishes_with_all_verdicts() {
    const EACH: u64 = 500;
    let policy = RetryPolicy::fixed(2, Duration::ZERO);
    let broker = Broker::builder().worker_count(4).retry_policy(policy).start().expect("valid settings");
    // By the remainder: 0 is skipped, 1 is done, 2 is done at the second attempt, 3 exhausts its attempts, 4 fails
    // permanently.
    broker
        .subscribe_with(SubscribeOptions::new("x").name("all").overflow(Overflow::Block(PATIENCE)), |delivery| {
            match (number_of(delivery.event()) % 5, delivery.attempt()) {
                (0, _) => Outcome::Skip,
                (2, 1) | (3, _) => Outcome::Retry("no".into()),
                (4, _) => Outcome::Permanent("no".into()),
                _ => Outcome::Done,
            }
        })
        .expect("valid");
    broker
        .subscribe_with(SubscribeOptions::new("x").name("other").overflow(Overflow::Block(PATIENCE)), |_| ())
        .expect("valid");
    let over = Arc::new(AtomicBool::new(false));
    let (watched, watching) = (broker.clone(), Arc::clone(&over));
    let watcher = thread::spawn(move || {
        while !watching.load(Ordering::Relaxed) {
            let stats = watched.stats();
            assert_eq!(stats.accepted, stats.completed + stats.failed + stats.in_flight);
            assert!(stats.in_flight <= stats.accepted);
        }
    });
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let broker = broker.clone();
            thread::spawn(move || {
                for number in 0..EACH {
                    let event = numbered("x", number);
                    if publisher == 0 {
                        broker.publish_sync(event.clone()).expect("room");
                    } else {
                        broker.publish(event.clone()).expect("room");
                    }
                    match number % 50 {
                        // A duplicate while the event may still run, and one with other content.
                        0 => assert!(broker.publish(event).expect("known").duplicate),
                        1 => {
                            let other = Event::builder(Source::System, "x").id(event.id().clone());
                            let refused = broker.publish(other.build().expect("valid")).expect_err("other content");
                            assert_eq!(refused.code(), "id_conflict");
                        }
                        _ => {}
                    }
                }
            })
        })
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
    wait_until("all are settled", || broker.stats().in_flight == 0);
    // A worker decrements `running` a moment after the verdict.
    wait_until("no call runs", || broker.stats().subscriptions.iter().all(|it| it.running == 0));
    over.store(true, Ordering::Relaxed);
    watcher.join().expect("no panic");

    let stats = broker.stats();
    let (events, fifth) = (4 * EACH, 4 * EACH / 5);
    // Each dead letter is announced by an event without a subscription.
    let notices = 2 * fifth;
    assert_eq!((stats.accepted, stats.in_flight), (events + notices, 0));
    assert_eq!((stats.completed, stats.failed), (3 * fifth + notices, 2 * fifth));
    assert_eq!((stats.duplicates, stats.rejected), (40, 40));
    assert_eq!((stats.attempts, stats.retries), (events + (1 + 1 + 2 + 3 + 1) * fifth, 3 * fifth));
    assert_eq!(verdicts(&stats.deliveries), [2 * fifth + events, fifth, 2 * fifth, 0, 0]);
    assert_eq!((stats.dead_letters, stats.dead_letter_notices_lost), (2 * fifth, 0));
    let all = of(&stats, "all");
    assert_eq!((all.attempts, all.retries), (8 * fifth, 3 * fifth));
    assert_eq!(verdicts(&all.deliveries), [2 * fifth, fifth, 2 * fifth, 0, 0]);
    let other = of(&stats, "other");
    assert_eq!((other.attempts, other.retries, verdicts(&other.deliveries)), (events, 0, [events, 0, 0, 0, 0]));
    for subscription in [all, other] {
        assert_eq!((subscription.queued, subscription.waiting, subscription.running), (0, 0, 0));
        assert_eq!((subscription.concurrency, subscription.queue_capacity, &*subscription.pattern), (2, 1_000, "x"));
    }
}

#[test]
fn totals_include_removed_subscriptions() {
    let broker = Broker::builder().start().expect("valid settings");
    let id = broker.subscribe("x", |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    broker.publish_sync(event("x")).expect("room");
    let before = broker.stats();
    broker.unsubscribe(id).expect("subscribed");
    let after = broker.stats();
    assert!(after.subscriptions.is_empty());
    assert_eq!((after.deliveries, after.attempts), (before.deliveries, before.attempts));
    assert_eq!((after.deliveries.dead, after.attempts), (1, 1));
}

#[test]
fn queued_running_and_waiting_deliveries_are_counted() {
    let broker = Broker::builder().instance_id("here").worker_count(3).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let options = SubscribeOptions::new("x").name("held").concurrency(2).queue_capacity(3);
    broker.subscribe_with(options, move |_| pass.pass()).expect("valid");
    broker
        .subscribe_with(
            SubscribeOptions::new("y").name("retried").retry(RetryPolicy::fixed(1, Duration::from_secs(3_600))),
            |_| Err::<(), _>("no"),
        )
        .expect("valid");
    for _ in 0..2 {
        broker.publish(event("x")).expect("room");
        gate.wait_for_arrival();
    }
    (0..3).for_each(|_| drop(broker.publish(event("x")).expect("room")));
    assert_eq!(broker.publish(event("x")).expect_err("full").code(), "queue_full");
    broker.publish(event("y")).expect("room");
    wait_until("the retry waits", || of(&broker.stats(), "retried").waiting == 1);
    wait_until("the worker of the retried call is idle", || broker.stats().workers_busy == 2);

    let stats = broker.stats();
    assert_eq!((&*stats.instance_id, stats.is_running, stats.workers), ("here", true, 3));
    let held = of(&stats, "held");
    assert_eq!((held.running, held.queued, held.queue_capacity, held.concurrency), (2, 3, 3, 2));
    assert_eq!((stats.accepted, stats.in_flight, stats.rejected), (6, 6, 1));
    assert!(stats.subscriptions.is_sorted_by_key(|it| it.id), "ordered by id");
    gate.open();
    wait_until("only the retry is left", || broker.stats().in_flight == 1);
    let stats = broker.stop(Duration::ZERO);
    assert_eq!(stats.abandoned.len(), 1);
}

#[test]
fn a_failed_event_is_counted_once_while_its_dead_letter_is_requeued_and_fails_again() {
    let broker = Broker::builder().worker_count(2).start().expect("valid settings");
    broker.subscribe("x", |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    broker.publish_sync(event("x")).expect("room");
    let racer = broker.clone();
    in_time("the race", move || {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..4_000 {
                    racer.requeue_matching(&DeadLetterFilter::default()).expect("the broker runs");
                }
                over.store(true, Ordering::Relaxed);
            });
            while !over.load(Ordering::Relaxed) {
                let stats = racer.stats();
                assert!(stats.failed <= 1, "one event was counted as {} failed ones", stats.failed);
                assert_eq!(stats.accepted, stats.completed + stats.failed + stats.in_flight);
            }
        });
    });
    wait_until("all are settled", || broker.stats().in_flight == 0);
    let stats = broker.stats();
    assert_eq!((stats.failed, stats.completed, stats.dead_letters), (1, stats.accepted - 1, 1));
    assert_eq!(stats.deliveries.dead, stats.attempts);
}
