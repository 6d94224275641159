//! `Confirm::Buffered`: an accepted event is in a bounded buffer of this process, and is sent to the back end in the
//! background.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter, DeadReason};
use eventbroker::error::{FullLimit, RequeueError};
use eventbroker::provider::BackendError;
use eventbroker::{Broker, Confirm, Event, EventId, PublishError, Scope, Source, Status, SubscribeOptions};
use eventbroker_conformance::loopback::Loopback;

use crate::support::{PATIENCE, event, listen, open_gate, wait_until};

/// The documented bound of the buffer.
const BUFFER: usize = 10_000;

fn broker(loopback: &Loopback) -> Broker {
    let builder = Broker::builder().worker_count(2).confirm(Confirm::Buffered).provider(loopback.provider());
    builder.start().expect("a running broker")
}

fn listen_here(broker: &Broker) -> Receiver<EventId> {
    listen(broker, SubscribeOptions::new("soon.*").name("here").scope(Scope::Local), &open_gate())
}

fn letters(broker: &Broker) -> Vec<DeadLetter> {
    broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers")
}

#[test]
fn an_event_is_accepted_and_handled_locally_before_the_back_end_has_it() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let calls = listen_here(&broker);
    loopback.hold_sends(true);
    let accepted = broker.publish(event("soon.it")).expect("accepted");
    assert_eq!((accepted.duplicate, accepted.deliveries), (false, 1));
    assert_eq!(calls.recv_timeout(PATIENCE).as_ref(), Ok(&accepted.id));
    assert!(loopback.inspect(|server| server.events.is_empty()));
    let seen = broker.get(&accepted.id).expect("the back end answers").expect("found locally");
    assert_eq!(seen.id(), &accepted.id);
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.in_flight), (1, 1), "the event is open until the back end has it");
    loopback.hold_sends(false);
    loopback.wait_until("the status follows the event", |server| {
        server.events.get(&accepted.id).is_some_and(|event| event.status() == Status::Completed)
    });
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_synchronous_publish_waits_for_handlers_and_not_for_the_back_end() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let calls = listen_here(&broker);
    loopback.hold_sends(true);
    let report = broker.publish_sync(event("soon.it")).expect("accepted");
    assert_eq!((report.settled.len(), report.open.len()), (1, 0));
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(report.id));
    loopback.hold_sends(false);
    assert!(broker.stop(PATIENCE).is_clean());
    assert_eq!(loopback.inspect(|server| server.events.len()), 1);
}

#[test]
fn the_buffer_is_bounded_and_its_events_are_sent_after_an_outage() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.set_unavailable(true);
    let mut ids = Vec::new();
    for _ in 0..BUFFER {
        ids.push(broker.publish(event("soon.it")).expect("accepted").id);
    }
    let refused = broker.publish(event("soon.it")).expect_err("the buffer is full");
    assert!(matches!(refused, PublishError::Full { limit: FullLimit::Mirror { max: BUFFER }, .. }), "{refused}");
    let refused = broker.publish_sync(event("soon.it")).expect_err("the buffer is full");
    assert!(refused.is_full(), "{refused}");
    loopback.set_unavailable(false);
    loopback.wait_until("all events arrive", |server| server.events.len() == BUFFER);
    assert!(broker.stop(PATIENCE).is_clean());
    assert!(ids.iter().all(|id| loopback.status(id) == Some(Status::Completed)));
}

#[test]
fn an_event_that_the_back_end_refuses_becomes_a_dead_letter_that_can_be_requeued() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let calls = listen_here(&broker);
    loopback.refuse(Some("too large"));
    let id = broker.publish(event("soon.it")).expect("accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE).as_ref(), Ok(&id), "the event was accepted");
    wait_until("the event is a dead letter", || letters(&broker).len() == 1);
    let letter = letters(&broker).remove(0);
    assert_eq!((letter.reason, &*letter.name, letter.subscription), (DeadReason::MirrorRejected, "mirror", None));
    assert_eq!((letter.event.id(), letter.errors[0].message.as_str()), (&id, "too large"));
    wait_until("the event counts as failed", || broker.stats().failed == 1);
    broker.requeue(letter.id).expect("requeued");
    wait_until("the event is refused again", || letters(&broker).len() == 1);
    loopback.refuse(None);
    assert_eq!(broker.requeue_matching(&DeadLetterFilter::default()), Ok(1));
    loopback.wait_until("the event arrives", |server| server.events.contains_key(&id));
    // The event and the notices of its two dead letters.
    wait_until("no event counts as failed", || (broker.stats().completed, broker.stats().failed) == (3, 0));
    assert_eq!(broker.requeue(letter.id), Err(RequeueError::NotFound { id: letter.id }));
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_dead_letter_stays_while_the_buffer_is_full() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.refuse(Some("not this one"));
    broker.publish(event("soon.it")).expect("accepted");
    wait_until("the event is a dead letter", || letters(&broker).len() == 1);
    let id = letters(&broker)[0].id;
    loopback.hold_sends(true);
    while broker.publish(event("soon.it")).is_ok() {}
    let refused = broker.requeue(id).expect_err("the buffer is full");
    assert!(matches!(refused, RequeueError::BackEnd(BackendError::Unavailable(_))), "{refused}");
    assert_eq!(letters(&broker).len(), 1);
    loopback.refuse(None);
    loopback.hold_sends(false);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn another_event_of_the_same_id_at_the_back_end_is_not_replaced() {
    let loopback = Loopback::new();
    let build = |payload: i32| {
        Event::builder(Source::System, "soon.it").id("the same").payload(&payload).build().expect("a valid event")
    };
    let elsewhere = Broker::builder().provider(loopback.provider()).start().expect("a running broker");
    let id = elsewhere.publish(build(1)).expect("accepted").id;
    let broker = broker(&loopback);
    let calls = listen_here(&broker);
    broker.publish(build(2)).expect("this process does not know it");
    calls.recv_timeout(PATIENCE).expect("the event was accepted");
    wait_until("the event is a dead letter", || letters(&broker).len() == 1);
    assert_eq!(letters(&broker)[0].reason, DeadReason::MirrorRejected);
    assert!(broker.stop(PATIENCE).is_clean());
    let held = elsewhere.get(&id).expect("the back end answers").expect("stored");
    assert_eq!((held.payload().as_str(), held.status()), ("1", Status::Completed));
    assert!(elsewhere.stop(PATIENCE).is_clean());
}

#[test]
fn a_stop_reports_events_that_never_reached_the_back_end() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.set_unavailable(true);
    let ids: Vec<EventId> = (0..3).map(|_| broker.publish(event("soon.it")).expect("accepted").id).collect();
    let report = broker.stop(Duration::from_millis(50));
    let unflushed: Vec<EventId> = report.unflushed.iter().map(|event| event.id().clone()).collect();
    assert_eq!(unflushed, ids);
    assert!(!report.is_clean());
}
