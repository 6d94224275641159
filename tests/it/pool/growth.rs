//! The worker pool grows when every worker is in a long call and another subscription has work, and shrinks afterwards.
//! Slow handlers do not block other subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbroker::{Broker, Overflow, RetryPolicy, SubscribeOptions};

use crate::support::{Gate, PATIENCE, Settlements, event, manual_clock, wait_for_retries, wait_until};

const HELD_UP: Duration = Duration::from_millis(20);

#[test]
fn the_pool_grows_one_by_one_to_its_bound_and_shrinks_back() {
    let clock = manual_clock();
    let broker = Broker::builder().worker_count(2).max_workers(4).manual_clock(&clock).start().expect("valid settings");
    let gate = Gate::closed();
    let hold = |pattern: &str| {
        let pass = gate.clone();
        broker.subscribe(pattern, move |_| pass.pass()).expect("valid");
        broker.publish(event(pattern)).expect("room");
    };
    hold("a");
    hold("b");
    gate.wait_for_arrival();
    gate.wait_for_arrival();
    hold("c");
    // The clock stands still, so no call counts as long.
    broker.publish_sync(event("nobody")).expect("room");
    assert_eq!((broker.stats().workers, gate.arrivals()), (2, 0));
    wait_until("the pool has grown", || {
        clock.advance(HELD_UP / 4);
        broker.stats().workers == 3
    });
    gate.wait_for_arrival();
    assert!(clock.elapsed() >= HELD_UP, "not before the workers were held up for 20 ms: {:?}", clock.elapsed());
    hold("d");
    wait_until("the pool has grown", || {
        clock.advance(HELD_UP / 4);
        broker.stats().workers_busy == 4
    });
    gate.wait_for_arrival();

    // Four workers are the bound: the next event waits for a worker.
    hold("e");
    let settlements = Settlements::of(&broker);
    // A probe with a dedicated thread: each of its retries shows that the timer has run once more.
    let probe = SubscribeOptions::new("probe").dedicated(1).retry(RetryPolicy::fixed(20, HELD_UP));
    let probe = broker.subscribe_with(probe, |_| Err::<(), _>("again")).expect("valid");
    broker.publish(event("probe")).expect("room");
    for attempts in 5..=24 {
        wait_for_retries(&broker, attempts, 1);
        clock.advance(HELD_UP);
    }
    assert_eq!(settlements.next().event_type, "probe");
    broker.unsubscribe(probe).expect("subscribed");
    assert_eq!((broker.stats().workers, gate.arrivals()), (4, 0));
    gate.open();
    settlements.take(5);

    // Extra workers leave after ten idle seconds, and not before.
    wait_until("all workers are idle", || broker.stats().workers_busy == 0);
    let idle_since = clock.elapsed();
    wait_until("the pool has shrunk", || {
        let workers = broker.stats().workers;
        let idle = clock.elapsed() - idle_since;
        assert!(workers == 4 || idle >= Duration::from_secs(10), "{workers} workers after {idle:?}");
        assert!(workers >= 2, "{workers} workers are left");
        clock.advance(Duration::from_millis(500));
        workers == 2
    });
    hold("f");
    assert_eq!(settlements.next().event_type, "f");
    // The configured workers stay however long they are idle.
    let probe = SubscribeOptions::new("probe").retry(RetryPolicy::fixed(20, Duration::from_secs(15)));
    broker.subscribe_with(probe, |_| Err::<(), _>("again")).expect("valid");
    let before = broker.stats().attempts;
    broker.publish(event("probe")).expect("room");
    for attempts in 1..=20 {
        wait_for_retries(&broker, before + attempts, 1);
        assert_eq!(broker.stats().workers, 2);
        clock.advance(Duration::from_secs(15));
    }
    settlements.next();
}

#[test]
fn the_pool_does_not_grow_for_a_subscription_at_its_concurrency() {
    let clock = manual_clock();
    let broker = Broker::builder().worker_count(2).manual_clock(&clock).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    broker.subscribe_with(SubscribeOptions::new("x").concurrency(2), move |_| pass.pass()).expect("valid");
    (0..10).for_each(|_| drop(broker.publish(event("x")).expect("room")));
    wait_until("both workers run its calls", || {
        clock.advance(HELD_UP);
        broker.stats().workers_busy == 2
    });
    // Each probe can only run on a worker that was added for it.
    let settlements = Settlements::of(&broker);
    broker.subscribe("probe", |_| ()).expect("valid");
    broker.publish(event("probe")).expect("room");
    wait_until("the probe is handled", || {
        clock.advance(HELD_UP);
        broker.stats().deliveries.done == 1
    });
    assert_eq!(settlements.next().event_type, "probe");
    assert_eq!(broker.stats().workers, 3);
    assert_eq!(broker.stats().subscriptions[0].running, 2, "its concurrency still bounds its calls");
    gate.open();
    settlements.take(10);
}

#[test]
fn healthy_subscriptions_go_on_while_others_are_stuck() {
    let broker = Broker::builder().worker_count(2).start().expect("valid settings");
    let gate = Gate::closed();
    // More subscriptions than workers, each with a backlog.
    for pattern in ["slow.a", "slow.b", "slow.c"] {
        let pass = gate.clone();
        broker.subscribe(pattern, move |_| pass.pass()).expect("valid");
        (0..50).for_each(|_| drop(broker.publish(event(pattern)).expect("room")));
    }
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    broker
        .subscribe_with(SubscribeOptions::new("healthy").overflow(Overflow::Block(PATIENCE)), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .expect("valid");
    (0..5_000).for_each(|_| drop(broker.publish(event("healthy")).expect("room")));
    wait_until("the healthy subscription has handled all events", || broker.stats().deliveries.done == 5_000);
    let stats = broker.stats();
    assert!(stats.workers <= 8, "at most four times as many workers: {}", stats.workers);
    assert_eq!(handled.load(Ordering::SeqCst), 5_000, "each event is handled once");
    gate.open();
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_dedicated_subscription_has_threads_of_its_own() {
    let broker = Broker::builder().worker_count(1).max_workers(1).start().expect("valid settings");
    let (shared, own) = (Gate::closed(), Gate::closed());
    let pass = shared.clone();
    broker.subscribe("shared", move |_| pass.pass()).expect("valid");
    let pass = own.clone();
    broker.subscribe_with(SubscribeOptions::new("own").dedicated(3), move |_| pass.pass()).expect("valid");
    assert_eq!((broker.stats().workers, broker.stats().subscriptions[1].concurrency), (4, 3));
    broker.publish(event("shared")).expect("room");
    shared.wait_for_arrival();
    // The only shared worker is blocked; the dedicated threads are not.
    (0..4).for_each(|_| drop(broker.publish(event("own")).expect("room")));
    (0..3).for_each(|_| own.wait_for_arrival());
    let stats = broker.stats();
    assert_eq!((stats.workers_busy, stats.subscriptions[1].running, stats.subscriptions[1].queued), (4, 3, 1));
    // The other way round: the dedicated threads are blocked.
    shared.open();
    broker.publish(event("shared")).expect("room");
    wait_until("the events of the shared worker are handled", || broker.stats().deliveries.done == 2);
    own.open();
    assert!(broker.stop(PATIENCE).is_clean());
}
