//! The status, the retry count and the listing of events.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use eventbroker::query::{Filter, Order};
use eventbroker::{HandlerError, Scope, Status};

use crate::Subject;
use crate::kit::{
    Gate, events, eventually, finish, listen, listen_with, named, number_of, numbered, publish, publish_all, start,
    status,
};

/// An event is pending, processing, then completed, or failed with the error.
pub fn status_goes_from_pending_to_completed_or_failed(subject: &dyn Subject) {
    let broker = start(subject);
    let gate = Gate::default();
    let held = gate.clone();
    let (_, calls) = listen_with(&broker, named("all", "status.*").concurrency(1), move |delivery| {
        held.pass();
        if number_of(delivery.event()) == 1 { Err(HandlerError::permanent("it broke")) } else { Ok(()) }
    });
    let good = publish(&broker, numbered("status.it", 0));
    calls.next();
    let bad = publish(&broker, numbered("status.it", 1));
    eventually("the first is processing", || status(&broker, &good) == Some(Status::Processing));
    let waiting = status(&broker, &bad).expect("it is known");
    // A back end may count a leased delivery as begun.
    assert!(waiting == Status::Pending || (subject.abilities().groups && waiting == Status::Processing), "{waiting}");
    gate.open();
    eventually("the first is completed", || status(&broker, &good) == Some(Status::Completed));
    eventually("the second is failed", || status(&broker, &bad) == Some(Status::Failed));
    let failed = broker.get(&bad).expect("the back end answers").expect("it is known");
    assert_eq!(failed.error(), Some("it broke"));
    let unheard = publish(&broker, numbered("nobody.listens", 0));
    eventually("an event without subscriptions is completed", || status(&broker, &unheard) == Some(Status::Completed));
    finish(&broker);
}

/// The retry count is reported also after success, for group and for local subscriptions.
pub fn the_retry_count_is_stored_with_the_event(subject: &dyn Subject) {
    let broker = start(subject);
    let fails_twice =
        |delivery: &eventbroker::Delivery<'_>| if delivery.attempt() <= 2 { Err("not yet") } else { Ok(()) };
    listen_with(&broker, named("shared", "shared.*"), fails_twice);
    listen_with(&broker, named("local", "local.*").scope(Scope::Local), fails_twice);
    for event_type in ["shared.it", "local.it"] {
        let id = publish(&broker, numbered(event_type, 0));
        eventually("the event is completed after two retries", || {
            let event = broker.get(&id).expect("the back end answers").expect("it is known");
            (event.status(), event.retry_count()) == (Status::Completed, 2)
        });
    }
    finish(&broker);
}

/// The status covers the deliveries of a group and of a local subscription, whichever ends first or fails.
pub fn status_covers_shared_and_local_subscriptions(subject: &dyn Subject) {
    let broker = start(subject);
    let slow = |scope: Scope| {
        move |delivery: &eventbroker::Delivery<'_>| {
            let plan = number_of(delivery.event());
            // Bit 0: which subscription is slower; bit 1: the group one fails; bit 2: the local one fails.
            if (plan & 1 == 0) == (scope == Scope::Local) {
                thread::sleep(Duration::from_millis(10));
            }
            let fails = plan & if scope == Scope::Local { 4 } else { 2 } != 0;
            if fails { Err(HandlerError::permanent(format!("{scope:?}"))) } else { Ok(()) }
        }
    };
    listen_with(&broker, named("shared", "both.*").scope(Scope::Group), slow(Scope::Group));
    listen_with(&broker, named("local", "both.*").scope(Scope::Local), slow(Scope::Local));
    for plan in 0..8 {
        let id = publish(&broker, numbered("both.it", plan));
        let expected = if plan < 2 { Status::Completed } else { Status::Failed };
        eventually("both have ended", || status(&broker, &id) == Some(expected));
    }
    finish(&broker);
}

/// The pages contain every event exactly once, in both orders, with the payload as published.
pub fn list_returns_each_event_once(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("all", "list.*"));
    let sent: BTreeMap<_, _> = events("list.it", 50).into_iter().map(|event| (event.id().clone(), event)).collect();
    calls.read(&publish_all(&broker, sent.values().cloned()));
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let mut filter = Filter { order, entity: None, limit: Some(7), ..Filter::default() };
        let mut listed = Vec::new();
        loop {
            let page = broker.list(&filter).expect("the back end answers");
            listed.extend(page.events);
            match page.next {
                Some(next) => filter.after = Some(next),
                None => break,
            }
        }
        let ids: Vec<_> = listed.iter().map(|event| event.id()).collect();
        let mut expected: Vec<_> = sent.keys().collect();
        if order == Order::NewestFirst {
            expected.reverse();
        }
        assert_eq!(ids, expected);
        assert!(listed.iter().all(|event| event.payload() == sent[event.id()].payload()));
    }
    finish(&broker);
}
