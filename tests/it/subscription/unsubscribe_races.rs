//! Races of subscribe, unsubscribe and publish: no call begins after `unsubscribe` has returned, nothing hangs, and
//! other subscriptions lose no event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use eventbroker::{Broker, Overflow, SubscribeOptions, SubscriptionId};
use parking_lot::Mutex;

use crate::support::{PATIENCE, event, in_time, keyed, wait_until};

/// Counts calls, and those that began too late.
#[derive(Default)]
struct Calls {
    started: AtomicU64,
    gone: AtomicBool,
    late: AtomicU64,
}

impl Calls {
    fn call(&self) {
        if self.gone.load(Ordering::SeqCst) {
            self.late.fetch_add(1, Ordering::SeqCst);
        }
        self.started.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn no_call_begins_after_unsubscribe_has_returned() {
    const ROUNDS: usize = 3_000;
    const PER_ROUND: usize = 8;
    let broker = Broker::builder().worker_count(2).start().expect("valid settings");
    let others = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&others);
    let always = SubscribeOptions::new("x").overflow(Overflow::Block(PATIENCE));
    broker
        .subscribe_with(always, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .expect("valid");
    // Each round lets each publisher publish a few events, so that publishing and the rounds keep pace.
    let (rounds, turns): (Vec<_>, Vec<_>) = (0..2).map(|_| sync_channel(2)).unzip();
    let publishers: Vec<_> = (0_u64..)
        .zip(turns)
        .map(|(number, turns)| {
            let broker = broker.clone();
            thread::spawn(move || {
                let mut published = 0_u64;
                for _ in turns.iter().flat_map(|()| 0..PER_ROUND) {
                    // Keys create and remove lanes; `publish_sync` runs calls on the publisher's thread.
                    let event = if published.is_multiple_of(3) { keyed("x", "k") } else { event("x") };
                    if number == 0 && published.is_multiple_of(5) {
                        assert!(broker.publish_sync(event).expect("room").open.is_empty());
                    } else {
                        broker.publish(event).expect("room");
                    }
                    published += 1;
                }
                published
            })
        })
        .collect();

    let (racer, accepted) = (broker.clone(), broker.clone());
    let called = in_time("the race", move || {
        let mut called = 0;
        for round in 0..ROUNDS {
            let calls = Arc::new(Calls::default());
            let handler = Arc::clone(&calls);
            let options = SubscribeOptions::new("x").name("racer").overflow(Overflow::DropOldest);
            let options = if round % 2 == 0 { options } else { options.ordered().queue_capacity(2) };
            rounds.iter().for_each(|turns| turns.send(()).expect("the publishers go on"));
            let id = racer.subscribe_with(options, move |_| handler.call()).expect("the name is free again");
            if round % 4 != 0 {
                thread::yield_now();
            }
            assert_eq!(racer.unsubscribe(id), Ok(0));
            calls.gone.store(true, Ordering::SeqCst);
            called += calls.started.load(Ordering::SeqCst);
            assert_eq!(calls.late.load(Ordering::SeqCst), 0);
        }
        called
    });
    let published: u64 = publishers.into_iter().map(|publisher| publisher.join().expect("no panic")).sum();
    assert!(called > 0, "no event reached the racing subscription");
    wait_until("all are settled", || accepted.stats().in_flight == 0);
    assert_eq!(others.load(Ordering::SeqCst), published, "the other subscription got each event once");
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.subscriptions.len()), (published, 1));
    assert_eq!(stats.attempts, published + called);
    assert!(broker.stop(PATIENCE).threads_left == 0);
}

#[test]
fn no_call_begins_after_a_handler_has_removed_itself() {
    const ROUNDS: usize = 500;
    let broker = Broker::builder().worker_count(3).start().expect("valid settings");
    let racer = broker.clone();
    in_time("the race", move || {
        for _ in 0..ROUNDS {
            let calls = Arc::new(Calls::default());
            let own: Arc<Mutex<Option<SubscriptionId>>> = Arc::default();
            let (handler, me) = (Arc::clone(&calls), Arc::clone(&own));
            let mut me_guard = own.lock();
            let id = racer
                .subscribe_with(SubscribeOptions::new("x").ordered(), move |delivery| {
                    handler.call();
                    let id = me.lock().expect("set before the lock is released");
                    let left = delivery.broker().expect("the broker lives").unsubscribe(id);
                    handler.gone.store(true, Ordering::SeqCst);
                    assert_eq!(left, Ok(1));
                })
                .expect("valid");
            *me_guard = Some(id);
            drop(me_guard);
            (0..3).for_each(|_| drop(racer.publish(event("x")).expect("room")));
            wait_until("all are settled", || racer.stats().in_flight == 0);
            assert_eq!((calls.started.load(Ordering::SeqCst), calls.late.load(Ordering::SeqCst)), (1, 0));
        }
    });
    let stats = broker.stats();
    assert_eq!((stats.deliveries.done, stats.subscriptions.len()), (ROUNDS as u64, 0));
    assert_eq!(stats.completed, stats.accepted);
}

#[test]
fn removing_a_dedicated_subscription_leaves_no_delivery_open() {
    const ROUNDS: usize = 500;
    let broker = Broker::builder().worker_count(1).start().expect("valid settings");
    let racer = broker.clone();
    in_time("the race", move || {
        for round in 0..ROUNDS {
            let id = racer.subscribe_with(SubscribeOptions::new("x").dedicated(1), |_| ()).expect("valid");
            // One event is being handled while the others are parked behind it.
            (0..4).for_each(|_| drop(racer.publish(keyed("x", "k")).expect("room")));
            (0..round % 16).for_each(|_| thread::yield_now());
            assert_eq!(racer.unsubscribe(id), Ok(0));
            wait_until("all have a verdict", || racer.stats().in_flight == 0);
        }
    });
    let stats = broker.stats();
    assert_eq!(stats.deliveries.done + stats.deliveries.cancelled, 4 * ROUNDS as u64);
}
