//! `list` returns the events that match every condition of its filter, ordered by id, in pages without gaps or
//! overlaps.

use std::collections::BTreeSet;
use std::slice;
use std::time::{Duration, SystemTime};

use eventbroker::query::{Filter, Order};
use eventbroker::{Broker, Event, EventBuilder, EventId, HandlerError, Source, Status, SubscribeOptions};

use crate::support::{Gate, event, wait_until};

fn publish(broker: &Broker, builder: EventBuilder) -> EventId {
    broker.publish(builder.build().expect("valid")).expect("room").id
}

fn list(broker: &Broker, filter: &Filter) -> Vec<EventId> {
    let page = broker.list(filter).expect("no back end");
    page.events.iter().map(|event| event.id().clone()).collect()
}

fn builder(source: Source, event_type: &str) -> EventBuilder {
    Event::builder(source, event_type)
}

#[test]
fn an_event_is_listed_if_it_matches_every_condition() {
    let broker = Broker::builder().instance_id("here").start().expect("valid settings");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let a = publish(&broker, builder(Source::Database, "shop.orders.create").user_id(1).created_at(time));
    let later = time + Duration::from_secs(1);
    let b = publish(&broker, builder(Source::Frontend, "shop.orders.delete").user_id(2).created_at(later));
    let latest = time + Duration::from_secs(2);
    let c = publish(&broker, builder(Source::Database, "shop.users.create").instance_id("there").created_at(latest));
    let d = publish(&broker, builder(Source::Internal, "other").schema("crm").entity("orders").created_at(latest));

    let check = |filter: Filter, expected: &[&EventId]| {
        let expected: Vec<EventId> = expected.iter().map(|id| (*id).clone()).collect();
        assert_eq!(list(&broker, &filter), expected, "{filter:?}");
    };
    let none = Filter::default;
    check(none(), &[&a, &b, &c, &d]);
    check(Filter { source: Some(Source::Database), ..none() }, &[&a, &c]);
    check(Filter { user_id: Some(2), ..none() }, &[&b]);
    check(Filter { user_id: Some(3), ..none() }, &[]);
    check(Filter { schema: Some("shop".into()), ..none() }, &[&a, &b, &c]);
    check(Filter { schema: Some("crm".into()), ..none() }, &[&d]);
    check(Filter { entity: Some("orders".into()), ..none() }, &[&a, &b, &d]);
    check(Filter { operation: Some("create".into()), ..none() }, &[&a, &c]);
    check(Filter { instance_id: Some("here".into()), ..none() }, &[&a, &b, &d]);
    check(Filter { instance_id: Some("there".into()), ..none() }, &[&c]);
    // Both bounds are inclusive.
    check(Filter { created_from: Some(later), ..none() }, &[&b, &c, &d]);
    check(Filter { created_to: Some(later), ..none() }, &[&a, &b]);
    check(Filter { created_from: Some(later), created_to: Some(later), ..none() }, &[&b]);
    check(Filter { created_from: Some(latest), created_to: Some(time), ..none() }, &[]);
    let both = Filter { entity: Some("orders".into()), source: Some(Source::Database), ..none() };
    check(both, &[&a]);
    check(Filter { order: Order::NewestFirst, ..none() }, &[&d, &c, &b, &a]);
    check(Filter { order: Order::NewestFirst, limit: Some(2), ..none() }, &[&d, &c]);
    check(Filter { order: Order::NewestFirst, after: Some(c.clone()), ..none() }, &[&b, &a]);
    check(Filter { after: Some(c), entity: Some("orders".into()), ..none() }, &[&d]);
}

#[test]
fn a_status_filter_selects_its_events() {
    let broker = Broker::builder().worker_count(2).start().expect("valid settings");
    let gate = Gate::closed();
    let held = gate.clone();
    broker.subscribe_with(SubscribeOptions::new("held").ordered(), move |_| held.pass()).expect("valid");
    broker.subscribe("bad", |_| Err::<(), _>(HandlerError::permanent("bad"))).expect("valid");
    let processing = broker.publish(event("held")).expect("room").id;
    let pending = broker.publish(event("held")).expect("room").id;
    let failed = broker.publish_sync(event("bad")).expect("room").id;
    let completed = broker.publish(event("nobody")).expect("room").id;
    gate.wait_for_arrival();

    let with = |status| list(&broker, &Filter { status: Some(status), ..Filter::default() });
    assert_eq!(with(Status::Processing), slice::from_ref(&processing));
    assert_eq!(with(Status::Pending), slice::from_ref(&pending));
    assert_eq!(with(Status::Failed), slice::from_ref(&failed));
    let all_completed = with(Status::Completed);
    assert!(all_completed.contains(&completed) && !all_completed.contains(&pending));

    let page = broker.list(&Filter::default()).expect("no back end");
    let status_of = |id: &EventId| page.events.iter().find(|event| event.id() == id).map(Event::status);
    assert_eq!(status_of(&processing), Some(Status::Processing));
    assert_eq!(status_of(&failed), Some(Status::Failed));
    gate.open();
    wait_until("all are settled", || broker.stats().in_flight == 0);
    assert!(with(Status::Pending).is_empty() && with(Status::Processing).is_empty());
}

#[test]
fn the_page_limit_has_a_default_a_minimum_and_a_maximum() {
    let broker = Broker::builder().max_events(25_000).start().expect("valid settings");
    let ids: Vec<EventId> = (0..23_000).map(|_| broker.publish(event("page")).expect("room").id).collect();

    let page = broker.list(&Filter::default()).expect("no back end");
    assert_eq!(page.events.len(), 100);
    assert_eq!(page.next.as_ref(), Some(&ids[99]));

    let page = broker.list(&Filter { limit: Some(0), ..Filter::default() }).expect("no back end");
    assert_eq!((page.events.len(), page.next), (0, None));

    for (order, expected) in [(Order::OldestFirst, ids.clone()), (Order::NewestFirst, ids.into_iter().rev().collect())]
    {
        let mut filter = Filter { limit: Some(1_000_000), order, ..Filter::default() };
        let (mut seen, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let page = broker.list(&filter).expect("no back end");
            sizes.push(page.events.len());
            seen.extend(page.events.iter().map(|event| event.id().clone()));
            let Some(next) = page.next else { break };
            filter.after = Some(next);
        }
        assert_eq!(sizes, [10_000, 10_000, 3_000]);
        assert_eq!(seen, expected, "{order:?}");
    }
}

#[test]
fn a_last_page_that_is_full_is_followed_by_an_empty_one() {
    let broker = Broker::builder().start().expect("valid settings");
    (0..6).for_each(|_| drop(broker.publish(event("page")).expect("room")));
    let mut filter = Filter { limit: Some(3), ..Filter::default() };
    let mut sizes = Vec::new();
    loop {
        let page = broker.list(&filter).expect("no back end");
        sizes.push(page.events.len());
        let Some(next) = page.next else { break };
        filter.after = Some(next);
    }
    assert_eq!(sizes, [3, 3, 0]);
}

#[test]
fn the_cursor_of_an_evicted_event_still_marks_its_place() {
    let broker = Broker::builder().max_events(10).start().expect("valid settings");
    let ids: Vec<EventId> = (0..16).map(|_| broker.publish(event("page")).expect("room").id).collect();
    let gone = ids[2].clone();
    assert_eq!(broker.get(&gone).expect("no back end"), None);
    let filter = Filter { after: Some(gone), ..Filter::default() };
    assert_eq!(list(&broker, &filter), ids[6..]);
    assert_eq!(list(&broker, &Filter { order: Order::NewestFirst, ..filter }), [] as [EventId; 0]);

    // An id that was never published: as a text it sorts after all UUIDs.
    let beyond = Filter { after: Some(EventId::parse("zzz").expect("valid")), ..Filter::default() };
    assert_eq!(list(&broker, &beyond), [] as [EventId; 0]);
    assert_eq!(list(&broker, &Filter { order: Order::NewestFirst, ..beyond }).len(), 10);
}

#[test]
fn foreign_ids_are_listed_in_the_same_order() {
    let broker = Broker::builder().start().expect("valid settings");
    let mut expected = BTreeSet::new();
    for id in ["b", "a", "order-7", "0190163d-8694-739b-aea5-966c26f8ad91"] {
        expected.insert(publish(&broker, builder(Source::System, "x").id(id)));
        expected.insert(publish(&broker, builder(Source::System, "x")));
    }
    let expected: Vec<EventId> = expected.into_iter().collect();
    let texts = |ids: &[EventId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(texts(&expected).is_sorted());
    assert_eq!(list(&broker, &Filter::default()), expected);
}
