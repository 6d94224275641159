//! Accounting of overflow: under every policy and with concurrent publishers, each event is counted exactly once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use eventbroker::{Broker, EventId, Overflow, SubscribeOptions, Verdict};

use crate::support::{event, keyed, wait_until};

const PUBLISHERS: u64 = 4;
const EVENTS: u64 = 2_500;

/// Publishes from several threads to subscriptions that are slower than the publishers, and checks all totals.
fn flood(overflow: Overflow, publish: impl Fn(&Broker, u64) -> bool + Sync) -> (Broker, u64) {
    let broker = Broker::builder().worker_count(2).start().expect("a running broker");
    let settled: Arc<Mutex<Vec<(String, EventId, Verdict)>>> = Arc::default();
    let notes = Arc::clone(&settled);
    broker.on_settled(move |it| {
        notes.lock().expect("no panic").push((it.name.to_owned(), it.event.id().clone(), it.verdict));
    });
    let calls = Arc::new(AtomicU64::new(0));
    for (name, capacity) in [("narrow", 4), ("wide", 64)] {
        let options = SubscribeOptions::new("a.*").name(name).queue_capacity(capacity).overflow(overflow);
        let counter = Arc::clone(&calls);
        let handler = move |_: &eventbroker::Delivery<'_>| {
            counter.fetch_add(1, Ordering::SeqCst);
            // A little slower than the publishers.
            (0..50).for_each(|_| std::hint::spin_loop());
        };
        broker.subscribe_with(options, handler).expect("a subscription");
    }
    let accepted: u64 = thread::scope(|scope| {
        let publish = &publish;
        let broker = &broker;
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|_| scope.spawn(move || (0..EVENTS).filter(|&number| publish(broker, number)).count() as u64))
            .collect();
        publishers.into_iter().map(|publisher| publisher.join().expect("no panic")).sum()
    });
    wait_until("all are settled and reported", || {
        broker.stats().in_flight == 0 && settled.lock().expect("no panic").len() as u64 >= 2 * accepted
    });

    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.rejected), (accepted, PUBLISHERS * EVENTS - accepted));
    let deliveries = stats.deliveries;
    assert_eq!(deliveries.done + deliveries.dropped, 2 * accepted, "each subscription settles each event");
    assert_eq!((deliveries.skipped, deliveries.dead, deliveries.cancelled), (0, 0, 0));
    assert_eq!((calls.load(Ordering::SeqCst), stats.attempts), (deliveries.done, deliveries.done));
    assert_eq!(stats.completed + stats.failed, accepted);
    for subscription in &stats.subscriptions {
        assert_eq!((subscription.queued, subscription.waiting), (0, 0));
        assert_eq!(subscription.deliveries.done + subscription.deliveries.dropped, accepted);
    }
    let settled = settled.lock().expect("no panic");
    let distinct: HashSet<_> = settled.iter().map(|(name, id, _)| (name, id)).collect();
    assert_eq!(
        (settled.len() as u64, distinct.len() as u64),
        (2 * accepted, 2 * accepted),
        "no delivery is settled twice"
    );
    let failed: HashSet<_> = settled.iter().filter(|it| it.2 == Verdict::Dropped).map(|it| &it.1).collect();
    assert_eq!(stats.failed, failed.len() as u64, "an event fails if any subscription dropped it");
    drop(settled);
    (broker, accepted)
}

#[test]
fn reject_refuses_and_drops_nothing() {
    let (broker, accepted) = flood(Overflow::Reject, |broker, _| broker.publish(event("a.b")).is_ok());
    assert_eq!((broker.stats().deliveries.dropped, broker.stats().deliveries.done), (0, 2 * accepted));
}

#[test]
fn reject_refuses_and_drops_nothing_with_keys() {
    let (broker, accepted) =
        flood(Overflow::Reject, |broker, number| broker.publish(keyed("a.b", &(number % 3).to_string())).is_ok());
    assert_eq!((broker.stats().deliveries.dropped, broker.stats().deliveries.done), (0, 2 * accepted));
}

#[test]
fn block_drops_nothing_and_refuses_only_after_its_patience() {
    let overflow = Overflow::Block(Duration::from_secs(60));
    let (broker, accepted) = flood(overflow, |broker, _| broker.publish(event("a.b")).is_ok());
    assert_eq!((accepted, broker.stats().deliveries.dropped), (PUBLISHERS * EVENTS, 0));
}

#[test]
fn a_short_block_refuses_some_events_and_drops_none() {
    let overflow = Overflow::Block(Duration::from_micros(20));
    let (broker, accepted) = flood(overflow, |broker, _| broker.publish(event("a.b")).is_ok());
    assert_eq!((broker.stats().deliveries.dropped, broker.stats().deliveries.done), (0, 2 * accepted));
}

#[test]
fn drop_oldest_accepts_everything_and_counts_what_it_drops() {
    let (_, accepted) = flood(Overflow::DropOldest, |broker, _| broker.publish(event("a.b")).is_ok());
    assert_eq!(accepted, PUBLISHERS * EVENTS);
}

#[test]
fn drop_oldest_accepts_everything_and_counts_what_it_drops_with_keys() {
    let (_, accepted) =
        flood(Overflow::DropOldest, |broker, number| broker.publish(keyed("a.b", &(number % 3).to_string())).is_ok());
    assert_eq!(accepted, PUBLISHERS * EVENTS);
}

#[test]
fn drop_newest_accepts_everything_and_counts_what_it_drops() {
    let (_, accepted) = flood(Overflow::DropNewest, |broker, _| broker.publish(event("a.b")).is_ok());
    assert_eq!(accepted, PUBLISHERS * EVENTS);
}

#[test]
fn publish_async_and_batches_are_accounted_for_too() {
    flood(Overflow::Reject, |broker, _| broker.publish_async(event("a.b")).is_ok());
    flood(Overflow::DropOldest, |broker, _| broker.publish_batch([event("a.b")]).remove(0).is_ok());
    flood(Overflow::Reject, |broker, _| broker.publish_sync(event("a.b")).is_ok());
}
