//! Eviction: open events stay, and terminal events that were never read leave first.

use eventbroker::query::Filter;
use eventbroker::{Broker, EventId, HandlerError, Status, SubscribeOptions};

use crate::support::{Gate, PATIENCE, event};

fn is_held(broker: &Broker, id: &EventId) -> bool {
    // `list`, unlike `get`, does not count as use.
    let page = broker.list(&Filter { limit: Some(Filter::MAX_LIMIT), ..Filter::default() }).expect("no back end");
    page.events.iter().any(|event| event.id() == id)
}

fn publish(broker: &Broker, event_type: &str, count: usize) -> Vec<EventId> {
    (0..count).map(|_| broker.publish(event(event_type)).expect("room").id).collect()
}

#[test]
fn open_events_are_never_evicted() {
    let broker = Broker::builder().max_events(10).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    broker.subscribe_with(SubscribeOptions::new("open").ordered(), move |_| pass.pass()).expect("valid");
    let open = publish(&broker, "open", 100);
    publish(&broker, "filler", 1_000);
    assert!(open.iter().all(|id| is_held(&broker, id)));
    assert_eq!(broker.store_stats().events, 110, "the bound counts terminal events only");
    gate.open();
    assert!(broker.stop(PATIENCE).is_clean());
    let store = broker.store_stats();
    assert!(store.events <= 10 && store.completed == store.events, "{store:?}");
}

#[test]
fn the_oldest_event_is_evicted_first_unless_it_was_read() {
    let broker = Broker::builder().max_events(10).start().expect("valid settings");
    let ids = publish(&broker, "x", 10);
    let read = &ids[0];
    assert!(broker.get(read).expect("no back end").is_some());
    publish(&broker, "x", 5);
    assert!(is_held(&broker, read) && !is_held(&broker, &ids[1]));
    assert_eq!(broker.store_stats().events, 10);
    publish(&broker, "x", 1_000);
    assert!(is_held(&broker, read), "no other event was read, so none takes its place");
}

#[test]
fn among_events_that_were_read_the_least_recently_used_is_evicted_first() {
    let broker = Broker::builder().max_events(4).start().expect("valid settings");
    let get = |id: &EventId| broker.get(id).expect("no back end");
    let ids = publish(&broker, "x", 2);
    assert!(ids.iter().all(|id| get(id).is_some()));
    publish(&broker, "x", 4);
    // Both are in the older generation, which holds two events.
    assert!(get(&ids[0]).is_some());
    let third = publish(&broker, "x", 1).remove(0);
    assert!(get(&third).is_some());
    publish(&broker, "x", 4);
    assert_eq!(ids.iter().map(|id| is_held(&broker, id)).collect::<Vec<_>>(), [true, false]);
    assert!(is_held(&broker, &third));
}

#[test]
fn failed_events_outlive_completed_ones() {
    let broker = Broker::builder().max_events(10).start().expect("valid settings");
    broker.subscribe("bad", |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    let failed: Vec<_> = (0..3).map(|_| broker.publish_sync(event("bad")).expect("room").id).collect();
    publish(&broker, "x", 1_000);
    for id in &failed {
        assert_eq!(broker.get(id).expect("no back end").map(|event| event.status()), Some(Status::Failed));
    }
    // Failed events take at most half of the places.
    (0..100).for_each(|_| drop(broker.publish_sync(event("bad")).expect("room")));
    publish(&broker, "x", 10);
    let store = broker.store_stats();
    assert_eq!((store.events, store.failed, store.completed), (10, 5, 5));
}

#[test]
fn a_duplicate_takes_no_place() {
    let broker = Broker::builder().max_events(4).start().expect("valid settings");
    let ids = publish(&broker, "x", 3);
    let last = event("x");
    for duplicate in [false, true, true, true, true, true] {
        assert_eq!(broker.publish(last.clone()).expect("room").duplicate, duplicate);
    }
    assert!(ids.iter().chain([last.id()]).all(|id| is_held(&broker, id)));
    publish(&broker, "x", 1);
    assert!(!is_held(&broker, &ids[0]) && is_held(&broker, &ids[1]), "the oldest is evicted");
    assert_eq!(broker.store_stats().events, 4);
}
