//! What the broker tells about an event.

use std::collections::BTreeMap;

use eventbroker::query::{Filter, Order};
use eventbroker::{HandlerError, Status};

use crate::Subject;
use crate::kit::{
    Gate, events, eventually, finish, listen, listen_with, named, number_of, numbered, publish, publish_all, start,
    status,
};

/// Pending, processing, then completed or failed with the error.
pub fn statuses_follow_the_handling(subject: &dyn Subject) {
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
    // A back end may count what it has handed over as begun.
    assert!(waiting == Status::Pending || (subject.abilities().groups && waiting == Status::Processing), "{waiting}");
    gate.open();
    eventually("the first is completed", || status(&broker, &good) == Some(Status::Completed));
    eventually("the second is failed", || status(&broker, &bad) == Some(Status::Failed));
    let failed = broker.get(&bad).expect("the back end answers").expect("it is known");
    assert_eq!(failed.error(), Some("it broke"));
    let unheard = publish(&broker, numbered("nobody.listens", 0));
    eventually("what nobody wants is completed", || status(&broker, &unheard) == Some(Status::Completed));
    finish(&broker);
}

/// Pages show every event exactly once, in both directions, and what each says is what was published.
pub fn list_shows_each_event_once(subject: &dyn Subject) {
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
