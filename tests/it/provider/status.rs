//! Queries, statuses and statistics with a back end.

use std::time::Instant;

use eventbroker::query::Filter;
use eventbroker::{Event, EventId, HandlerError, Status};
use eventbroker_conformance::loopback::Loopback;

use super::loopback::{RECOVERY, bridge_stats, broker, finish, ids_of, local, named, next};
use crate::support::{Gate, event, listen, numbered, open_gate, wait_until};

#[test]
fn get_and_list_read_from_the_back_end() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let sent: Vec<Event> = (0..10).map(|it| numbered("look.it", it)).collect();
    for event in &sent {
        one.publish(event.clone()).expect("accepted");
    }
    for event in &sent {
        let found = two.get(event.id()).expect("the back end answers").expect("published by the other broker");
        assert_eq!((found.id(), found.payload()), (event.id(), event.payload()));
    }
    let page = two.list(&Filter { limit: Some(7), ..Filter::default() }).expect("the back end answers");
    assert_eq!((page.events.len(), page.next.is_some()), (7, true));
    let rest = two.list(&Filter { after: page.next, ..Filter::default() }).expect("the back end answers");
    assert_eq!((rest.events.len(), rest.next), (3, None));
    assert_eq!(ids_of(&[page.events, rest.events].concat()), ids_of(&sent));
    loopback.set_unavailable(true);
    two.list(&Filter::default()).expect_err("unavailable");
    two.get(event("look.other").id()).expect_err("unavailable");
    loopback.set_unavailable(false);
    finish(&one);
    finish(&two);
}

#[test]
fn final_statuses_reach_the_back_end() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    two.subscribe_with(named("mixed", "status.*"), |delivery| match delivery.event().event_type().as_str() {
        "status.bad" => Err(HandlerError::permanent("it broke")),
        _ => Ok(()),
    })
    .expect("a subscription");
    let good = one.publish(event("status.good")).expect("accepted").id;
    let bad = one.publish(event("status.bad")).expect("accepted").id;
    loopback.wait_until("the good one is completed", |server| server.events[&good].status() == Status::Completed);
    loopback.wait_until("the bad one is failed", |server| server.events[&bad].status() == Status::Failed);
    let failed = one.get(&bad).expect("the back end answers").expect("known");
    assert_eq!(
        (failed.status(), failed.error()),
        (Status::Failed, Some("it broke")),
        "the publisher reads the same status"
    );
    let unheard = one.publish(event("nobody.listens")).expect("accepted").id;
    finish(&one);
    finish(&two);
    assert_eq!(loopback.status(&unheard), Some(Status::Completed));
}

#[test]
fn verdicts_of_local_subscriptions_reach_the_back_end() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let held = gate.clone();
    broker
        .subscribe_with(local("here", "told.*"), move |_| {
            held.pass();
            Err::<(), _>(HandlerError::permanent("it broke"))
        })
        .expect("a subscription");
    let id = broker.publish(event("told.it")).expect("accepted").id;
    loopback.wait_until("the event is processing", |server| server.events[&id].status() == Status::Processing);
    gate.open();
    finish(&broker);
    let failed = loopback.inspect(|server| server.events[&id].clone());
    assert_eq!((failed.status(), failed.error()), (Status::Failed, Some("it broke")));
}

#[test]
fn statuses_and_verdicts_survive_an_outage() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let calls = listen(&broker, named("shared", "outage.*").concurrency(20), &gate);
    let ids: Vec<EventId> = (0..20).map(|it| broker.publish(numbered("outage.it", it)).expect("room").id).collect();
    loopback.wait_until("all are leased", |server| server.leased() == 20);
    next(&calls);
    listen(&broker, local("here", "near.it"), &gate);
    let near = broker.publish(event("near.it")).expect("accepted").id;
    loopback.wait_until("the event is processing", |server| server.events[&near].status() == Status::Processing);
    loopback.set_unavailable(true);
    gate.open();
    let (errors, failures) = (bridge_stats(&broker).errors, loopback.inspect(|server| server.failures));
    wait_until("all are handled locally", || broker.stats().deliveries.done == 21);
    loopback.wait_until("settling has failed", |server| server.failures > failures + 4);
    assert!(bridge_stats(&broker).errors > errors);
    assert_eq!(loopback.inspect(|server| server.settlements.len()), 0);
    loopback.set_unavailable(false);
    let back = Instant::now();
    loopback.wait_until("all are settled", |server| server.done("shared") == 20);
    loopback.wait_until("all are completed", |server| {
        ids.iter().chain([&near]).all(|id| server.events[id].status() == Status::Completed)
    });
    assert!(back.elapsed() < RECOVERY, "it took {:?}", back.elapsed());
    finish(&broker);
}

#[test]
fn statistics_count_sent_and_received_events() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    assert_eq!(bridge_stats(&broker), eventbroker::stats::BridgeStats::default());
    let calls = listen(&broker, named("shared", "count.yes"), &open_gate());
    for number in 0..10 {
        broker.publish(numbered("count.yes", number)).expect("accepted");
        broker.publish(numbered("count.no", number)).expect("accepted");
    }
    (0..10).for_each(|_| drop(next(&calls)));
    finish(&broker);
    let stats = bridge_stats(&broker);
    assert_eq!((stats.mirrored, stats.mirror_backlog, stats.ingested), (20, 0, 10));
    assert_eq!((stats.errors, stats.last_error), (0, None));
    let totals = broker.stats();
    assert_eq!(
        (totals.accepted, totals.completed, totals.in_flight),
        (20, 20, 0),
        "an event that is also delivered here counts once"
    );
}
