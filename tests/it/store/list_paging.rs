//! Paging lists each event that stays in the store exactly once, while other threads publish and settle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use eventbroker::query::{Filter, Order};
use eventbroker::{Broker, EventId, HandlerError, Overflow, SubscribeOptions};

use crate::support::{Gate, PATIENCE, event};

/// Reads all pages. Returns the ids in the order in which they were listed.
fn walk(broker: &Broker, order: Order, limit: usize) -> Vec<EventId> {
    let mut filter = Filter { order, limit: Some(limit), ..Filter::default() };
    let mut seen = Vec::new();
    loop {
        let page = broker.list(&filter).expect("no back end");
        assert!(page.events.len() <= limit);
        seen.extend(page.events.iter().map(|event| event.id().clone()));
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return seen,
        }
    }
}

#[test]
fn each_event_that_stays_is_listed_exactly_once_while_others_come_and_go() {
    let broker = Broker::builder().worker_count(2).max_events(300).start().expect("valid settings");
    let gate = Gate::closed();
    let held = gate.clone();
    broker.subscribe_with(SubscribeOptions::new("stays").ordered(), move |_| held.pass()).expect("valid");
    let blocking = |pattern: &str| SubscribeOptions::new(pattern).overflow(Overflow::Block(PATIENCE));
    broker.subscribe_with(blocking("goes.well"), |_| ()).expect("valid");
    broker.subscribe_with(blocking("goes.badly"), |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");

    // Open events are never evicted. They start in the ring, and move to the older generation while pages are read.
    let mut stays: BTreeSet<EventId> = (0..100).map(|_| broker.publish(event("stays")).expect("room").id).collect();
    let over = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = ["goes.well", "goes.badly", "goes.unseen"]
        .into_iter()
        .map(|event_type| {
            let (broker, over) = (broker.clone(), Arc::clone(&over));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    broker.publish(event(event_type)).expect("room");
                    thread::yield_now();
                }
            })
        })
        .collect();

    // Until the ring has been filled many times over.
    let mut round = 0;
    while round < 12 || broker.stats().accepted < 10_000 {
        let order = if round % 2 == 0 { Order::OldestFirst } else { Order::NewestFirst };
        let before = stays.clone();
        if round < 12 {
            // New events may or may not be listed in this round.
            stays.extend((0..10).map(|_| broker.publish(event("stays")).expect("room").id));
        }
        let seen = walk(&broker, order, 7 + 5 * (round % 12));
        let distinct: BTreeSet<EventId> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "an event was listed twice");
        let missing: Vec<_> = before.difference(&distinct).collect();
        assert!(missing.is_empty(), "{} of {} were not listed: {missing:?}", missing.len(), before.len());
        round += 1;
    }
    over.store(true, Ordering::Relaxed);
    publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
    gate.open();
    assert!(broker.stop(PATIENCE).is_clean());
    let store = broker.store_stats();
    assert!(store.events <= 300 && store.pending + store.processing == 0);
}
