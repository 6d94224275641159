//! The status of an event follows its deliveries; `get` returns it with times, errors and counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};

use eventbroker::{Broker, Event, EventId, HandlerError, Outcome, RetryPolicy, Status, SubscribeOptions, Verdict};

use crate::support::{Gate, Settlements, event, manual_clock, receive, wait_for_retries};

const SECOND: Duration = Duration::from_secs(1);

fn read(broker: &Broker, id: &EventId) -> Event {
    broker.get(id).expect("no back end").expect("the event is in the store")
}

#[test]
fn pending_then_processing_then_completed_with_the_times_of_each_step() {
    let clock = manual_clock();
    let broker = Broker::builder().worker_count(1).manual_clock(&clock).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    broker.subscribe_with(SubscribeOptions::new("x").ordered(), move |_| pass.pass()).expect("valid");
    let settlements = Settlements::of(&broker);

    let started = SystemTime::now();
    let first = broker.publish(event("x")).expect("room").id;
    gate.wait_for_arrival();
    let second = broker.publish(event("x")).expect("room").id;
    let processing = read(&broker, &first);
    assert_eq!((processing.status(), processing.completed_at()), (Status::Processing, None));
    let processed_at = processing.processed_at().expect("a handler has started");
    assert!(processed_at.duration_since(started).is_ok_and(|late| late < 60 * SECOND) || processed_at <= started);
    let pending = read(&broker, &second);
    assert_eq!((pending.status(), pending.processed_at(), pending.completed_at()), (Status::Pending, None, None));

    clock.advance(5 * SECOND);
    gate.open_once();
    assert_eq!(settlements.next().id, first);
    let done = read(&broker, &first);
    assert_eq!((done.status(), done.error(), done.retry_count()), (Status::Completed, None, 0));
    assert_eq!(done.processed_at(), Some(processed_at));
    assert_eq!(done.completed_at(), Some(processed_at + 5 * SECOND));

    gate.open();
    settlements.next();
    let done = read(&broker, &second);
    assert_eq!((done.status(), done.processed_at()), (Status::Completed, Some(processed_at + 5 * SECOND)));
}

#[test]
fn an_event_without_a_subscription_is_completed_immediately() {
    let broker = Broker::builder().start().expect("valid settings");
    let id = broker.publish(event("nobody.here")).expect("room").id;
    let done = read(&broker, &id);
    assert_eq!((done.status(), done.processed_at(), done.error()), (Status::Completed, None, None));
    assert!(done.completed_at().is_some());

    let report = broker.publish_sync(event("nobody.here")).expect("room");
    assert!(report.is_success() && report.settled.is_empty() && report.open.is_empty());
    assert_eq!(read(&broker, &report.id).status(), Status::Completed);
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.completed, stats.in_flight), (2, 2, 0));
}

#[test]
fn retries_and_the_last_error_are_recorded() {
    let clock = manual_clock();
    let policy = RetryPolicy::fixed(2, SECOND);
    let broker = Broker::builder().retry_policy(policy).manual_clock(&clock).start().expect("valid settings");
    broker
        .subscribe("fails", |delivery| Err::<(), _>(HandlerError::retry(format!("attempt {}", delivery.attempt()))))
        .expect("valid");
    broker
        .subscribe("fails.once", |delivery| match delivery.attempt() {
            1 => Err(HandlerError::retry("not yet")),
            _ => Ok(()),
        })
        .expect("valid");
    let settlements = Settlements::of(&broker);

    let failing = broker.publish(event("fails")).expect("room").id;
    let recovering = broker.publish(event("fails.once")).expect("room").id;
    wait_for_retries(&broker, 2, 2);
    for id in [&failing, &recovering] {
        let between = read(&broker, id);
        assert_eq!((between.status(), between.retry_count(), between.error()), (Status::Processing, 0, None));
        assert_eq!(between.completed_at(), None);
    }
    let processed_at = read(&broker, &failing).processed_at();

    clock.advance(SECOND);
    assert_eq!(settlements.next().id, recovering);
    let recovered = read(&broker, &recovering);
    assert_eq!((recovered.status(), recovered.retry_count(), recovered.error()), (Status::Completed, 1, None));

    wait_for_retries(&broker, 4, 1);
    assert_eq!(read(&broker, &failing).retry_count(), 1);
    clock.advance(SECOND);
    assert_eq!(settlements.next().id, failing);
    let failed = read(&broker, &failing);
    assert_eq!((failed.status(), failed.retry_count(), failed.error()), (Status::Failed, 2, Some("attempt 3")));
    assert_eq!(failed.processed_at(), processed_at, "the time of the first attempt");
    assert_eq!(failed.completed_at(), processed_at.map(|at| at + 2 * SECOND));
}

#[test]
fn the_retry_count_is_not_summed_over_subscriptions() {
    let policy = RetryPolicy::fixed(2, Duration::ZERO);
    let broker = Broker::builder().retry_policy(policy).start().expect("valid settings");
    for _ in 0..3 {
        broker.subscribe("x", |_| Err::<(), _>("no")).expect("valid");
    }
    let report = broker.publish_sync(event("x")).expect("room");
    assert_eq!(report.settled.iter().map(|it| it.attempts).collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(read(&broker, &report.id).retry_count(), 2);
}

#[test]
fn a_skip_counts_as_success() {
    let broker = Broker::builder().start().expect("valid settings");
    broker.subscribe("x", |_| Outcome::Skip).expect("valid");
    broker.subscribe("x", |_| Err::<(), _>(HandlerError::skip())).expect("valid");
    let report = broker.publish_sync(event("x")).expect("room");
    assert!(report.is_success());
    assert!(report.settled.iter().all(|it| it.verdict == Verdict::Skipped && it.error.is_none()));
    assert_eq!(read(&broker, &report.id).status(), Status::Completed);
    let stats = broker.stats();
    assert_eq!((stats.deliveries.skipped, stats.deliveries.done, stats.dead_letters), (2, 0, 0));
}

#[test]
fn one_dead_delivery_fails_the_event_with_the_error_of_the_first_dead_letter() {
    let broker = Broker::builder().start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    broker
        .subscribe_with(SubscribeOptions::new("x").name("late"), move |_| {
            pass.pass();
            Err::<(), _>(HandlerError::permanent("late error"))
        })
        .expect("valid");
    broker
        .subscribe_with(SubscribeOptions::new("x").name("early"), |_| {
            Err::<(), _>(HandlerError::permanent("early error"))
        })
        .expect("valid");
    broker.subscribe_with(SubscribeOptions::new("x").name("good"), |_| ()).expect("valid");
    let settlements = Settlements::of(&broker);

    let id = broker.publish(event("x")).expect("room").id;
    let mut settled: Vec<String> = settlements.take(2).into_iter().map(|it| it.name).collect();
    settled.sort();
    assert_eq!(settled, ["early", "good"]);
    assert_eq!(read(&broker, &id).status(), Status::Processing, "one delivery is open");
    gate.open();
    assert_eq!(settlements.next().name, "late");
    let failed = read(&broker, &id);
    assert_eq!((failed.status(), failed.error()), (Status::Failed, Some("early error")));
    assert_eq!(broker.dead_letter_count().expect("the back end answers"), 2);
    let stats = broker.stats();
    assert_eq!((stats.failed, stats.completed), (1, 2), "the notices of the two dead letters are completed");
}

#[test]
fn a_failing_subscription_neither_repeats_nor_delays_the_others() {
    let clock = manual_clock();
    let policy = RetryPolicy::fixed(3, SECOND);
    let broker =
        Broker::builder().worker_count(1).retry_policy(policy).manual_clock(&clock).start().expect("valid settings");
    broker.subscribe("x", |_| Err::<(), _>("no")).expect("valid");
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    broker
        .subscribe("x", move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .expect("valid");
    let settlements = Settlements::of(&broker);

    for round in 1..=3 {
        let id = broker.publish(event("x")).expect("room").id;
        // The clock stands still, so no retry is due. The other delivery is still handled by the only worker.
        let settled = settlements.next();
        assert_eq!((settled.id, settled.verdict, settled.attempts), (id.clone(), Verdict::Done, 1));
        assert_eq!(calls.load(Ordering::SeqCst), round);
        assert_eq!(read(&broker, &id).status(), Status::Processing);
    }
    for attempt in 1..=3 {
        wait_for_retries(&broker, 3 + 3 * attempt, 3);
        clock.advance(SECOND);
    }
    assert!(settlements.take(3).iter().all(|it| it.verdict == Verdict::Dead && it.attempts == 4));
    assert_eq!(calls.load(Ordering::SeqCst), 3, "once for each event");
    assert_eq!(broker.stats().failed, 3);
}

#[test]
fn an_event_value_does_not_change_with_the_status() {
    let broker = Broker::builder().start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let (sender, handled) = channel();
    broker
        .subscribe("x", move |delivery| {
            let before = delivery.event().clone();
            pass.pass();
            let _ = sender.send((before, delivery.event().clone()));
        })
        .expect("valid");
    let settlements = Settlements::of(&broker);
    let published = event("x");
    broker.publish(published.clone()).expect("room");
    gate.wait_for_arrival();
    let processing = read(&broker, published.id());
    gate.open();
    settlements.next();
    let (before, after) = receive(&handled, "the handler's copies");
    assert_eq!(before, after);
    assert_eq!((published.status(), processing.status()), (Status::Pending, Status::Processing));
    let completed = read(&broker, published.id());
    assert_eq!((completed.status(), completed.payload()), (Status::Completed, published.payload()));
}
