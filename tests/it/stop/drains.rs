//! `stop` drains: it handles accepted events, waits only for deliveries that can end before the deadline, and reports
//! the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::error::{StartError, SubscribeError};
use eventbroker::{Broker, HandlerError, Mode, PublishError, RetryPolicy, Status, SubscribeOptions, Verdict};

use crate::support::{Gate, PATIENCE, Settlements, event, in_time, manual_clock, wait_for_retries, wait_until};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn all_queued_events_are_handled() {
    let broker = Broker::builder().worker_count(2).start().expect("valid settings");
    let gate = Gate::closed();
    let (pass, handled) = (gate.clone(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&handled);
    broker
        .subscribe_with(SubscribeOptions::new("x").ordered(), move |_| {
            pass.pass();
            count.fetch_add(1, Ordering::SeqCst);
        })
        .expect("valid");
    broker.subscribe("bad", |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    (0..100).for_each(|_| drop(broker.publish(event("x")).expect("room")));
    gate.wait_for_arrival();
    let stopper = broker.clone();
    let stopping = thread::spawn(move || stopper.stop(PATIENCE));
    wait_until("new events are refused", || !broker.stats().is_running);
    let refused = broker.publish(event("x")).expect_err("the broker stops");
    assert!(matches!(refused, PublishError::NotRunning { .. }), "{refused}");
    assert_eq!(broker.subscribe("x", |_| ()), Err(SubscribeError::Stopped));
    gate.open();
    let report = stopping.join().expect("no panic");
    assert_eq!(handled.load(Ordering::SeqCst), 100);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.drained, report.released, report.abandoned.len(), report.threads_left), (100, 0, 0, 0));
    assert!(report.finished && report.unflushed.is_empty());
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.completed, stats.in_flight, stats.workers), (100, 100, 0, 0));
}

#[test]
fn later_and_concurrent_stops_return_the_report_of_the_first() {
    let broker = Broker::builder().start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    broker.subscribe("x", move |_| pass.pass()).expect("valid");
    (0..3).for_each(|_| drop(broker.publish(event("x")).expect("room")));
    gate.wait_for_arrival();
    let stops: Vec<_> = (0..4)
        .map(|_| {
            let broker = broker.clone();
            thread::spawn(move || broker.stop(PATIENCE))
        })
        .collect();
    wait_until("a stop has begun", || !broker.stats().is_running);
    gate.open();
    let reports: Vec<_> = stops.into_iter().map(|stop| stop.join().expect("no panic")).collect();
    assert_eq!((reports[0].drained, reports[0].finished), (3, true));
    assert!(reports.iter().all(|report| *report == reports[0]), "{reports:?}");
    assert_eq!(broker.stop(Duration::ZERO), reports[0]);
}

#[test]
fn a_broker_that_was_never_started_stops_immediately_and_permanently() {
    let broker = Broker::builder().build().expect("valid settings");
    broker.subscribe("x", |_| ()).expect("valid");
    let report = in_time("stop", {
        let broker = broker.clone();
        move || broker.stop(Duration::from_secs(3_600))
    });
    assert!(report.is_clean() && report.drained == 0);
    assert_eq!(broker.start(), Err(StartError::Stopped));
}

#[test]
fn nothing_starts_after_a_stop() {
    let broker = Broker::builder().start().expect("valid settings");
    assert_eq!(broker.start(), Err(StartError::AlreadyRunning));
    let before = broker.publish(event("nobody")).expect("room").id;
    assert!(broker.stop(PATIENCE).is_clean());
    let refused = broker.start().expect_err("a stop is final");
    assert_eq!(
        (refused.clone(), refused.to_string().as_str()),
        (StartError::Stopped, "broker has stopped; build another one")
    );
    assert!(matches!(broker.publish(event("x")), Err(PublishError::NotRunning { .. })));
    assert!(matches!(broker.publish_sync(event("x")), Err(PublishError::NotRunning { .. })));
    assert!(matches!(broker.publish_async(event("x")), Err(PublishError::NotRunning { .. })));
    assert_eq!(broker.subscribe("x", |_| ()), Err(SubscribeError::Stopped));
    assert_eq!(broker.subscribe_with(SubscribeOptions::new("x").dedicated(1), |_| ()), Err(SubscribeError::Stopped));
    // Events and statistics can still be read.
    assert_eq!(broker.get(&before).expect("no back end").map(|event| event.status()), Some(Status::Completed));
    let stats = broker.stats();
    assert_eq!((stats.is_running, stats.accepted, stats.rejected, stats.workers), (false, 1, 3, 0));
}

#[test]
fn stop_waits_for_a_retry_that_is_due_before_the_deadline() {
    let clock = manual_clock();
    let policy = RetryPolicy::fixed(1, SECOND);
    let broker = Broker::builder().retry_policy(policy).manual_clock(&clock).start().expect("valid settings");
    broker.subscribe("x", |it| if it.attempt() == 1 { Err("once more") } else { Ok(()) }).expect("valid");
    broker.publish(event("x")).expect("room");
    wait_for_retries(&broker, 1, 1);
    let stopper = broker.clone();
    let stopping = thread::spawn(move || stopper.stop(2 * SECOND));
    wait_until("the stop has begun", || !broker.stats().is_running);
    assert!(!stopping.is_finished());
    clock.advance(SECOND);
    let report = stopping.join().expect("no panic");
    assert!(report.is_clean() && report.drained == 1, "{report:?}");
    assert_eq!((broker.stats().attempts, broker.stats().completed), (2, 1));
}

#[test]
fn a_retry_that_is_due_after_the_deadline_is_abandoned_immediately() {
    let clock = manual_clock();
    let policy = RetryPolicy::fixed(1, 10 * SECOND);
    let broker = Broker::builder().retry_policy(policy).manual_clock(&clock).start().expect("valid settings");
    broker.subscribe("x", |_| Err::<(), _>("no")).expect("valid");
    let gate = Gate::closed();
    let pass = gate.clone();
    broker
        .subscribe("late", move |_| {
            pass.pass();
            Err::<(), _>("no")
        })
        .expect("valid");
    let settlements = Settlements::of(&broker);
    let mut ids: Vec<_> = (0..2).map(|_| broker.publish(event("x")).expect("room").id).collect();
    wait_for_retries(&broker, 2, 2);
    // This event fails, and would be retried, after the stop has begun.
    ids.push(broker.publish(event("late")).expect("room").id);
    gate.wait_for_arrival();
    let stopper = broker.clone();
    let stopping = thread::spawn(move || stopper.stop(5 * SECOND));
    assert!(settlements.take(2).iter().all(|it| it.verdict == Verdict::Cancelled && it.attempts == 1));
    gate.open();
    // The clock stands still, so this stop does not wait for its deadline.
    let report = stopping.join().expect("no panic");
    ids.sort();
    assert_eq!((report.abandoned.clone(), report.threads_left, report.finished), (ids, 0, true));
    assert!(!report.is_clean());
    assert_eq!((broker.dead_letter_count().expect("the back end answers"), broker.stats().in_flight), (0, 0));
}

#[test]
fn a_handler_that_ignores_the_deadline_is_reported_and_left_running() {
    let broker = Broker::builder().worker_count(2).start().expect("valid settings");
    let gate = Gate::closed();
    let (pass, cancelled) = (gate.clone(), Arc::new(AtomicBool::new(false)));
    let (seen, (done, ended)) = (Arc::clone(&cancelled), channel());
    broker
        .subscribe_with(SubscribeOptions::new("stuck").ordered(), move |delivery| {
            let before = delivery.cancelled();
            pass.pass();
            seen.store(!before && delivery.cancelled(), Ordering::SeqCst);
            let _ = done.send(());
        })
        .expect("valid");
    let settlements = Settlements::of(&broker);
    let running = broker.publish(event("stuck")).expect("room").id;
    gate.wait_for_arrival();
    let queued = broker.publish(event("stuck")).expect("room").id;
    let done_before = broker.publish(event("nobody")).expect("room").id;

    let deadline = Duration::from_millis(200);
    let started = Instant::now();
    let report = broker.stop(deadline);
    let took = started.elapsed();
    assert!(took >= deadline && took < deadline + 2 * SECOND, "{took:?}");
    assert_eq!(report.abandoned, [running.clone(), queued.clone()]);
    assert!(!report.abandoned.contains(&done_before));
    assert_eq!((report.threads_left, report.finished, report.is_clean()), (1, true, false));
    let settled = settlements.next();
    assert_eq!((settled.id, settled.verdict, settled.attempts), (queued, Verdict::Cancelled, 0));
    let status = |id| broker.get(id).expect("no back end").map(|event| event.status());
    assert_eq!(status(&running), Some(Status::Processing));

    gate.open();
    crate::support::receive(&ended, "the end of the handler");
    assert!(cancelled.load(Ordering::SeqCst), "the call was cancelled");
    wait_until("its thread has ended", || broker.stats().workers == 0);
    assert_eq!(broker.stop(PATIENCE), report, "later stops return the first report");
}

#[test]
fn a_handler_that_checks_cancelled_ends_in_time() {
    let broker = Broker::builder().start().expect("valid settings");
    let (sender, started) = channel();
    broker
        .subscribe("long", move |delivery| {
            let _ = sender.send(());
            while !delivery.cancelled() {
                thread::yield_now();
            }
            Err::<(), _>("cancelled")
        })
        .expect("valid");
    let id = broker.publish(event("long")).expect("room").id;
    crate::support::receive(&started, "the call");
    let report = broker.stop(Duration::from_millis(50));
    assert_eq!((report.abandoned, report.threads_left), (vec![id], 0));
    assert_eq!((broker.stats().in_flight, broker.stats().deliveries.cancelled), (0, 1));
}

#[test]
fn handlers_cannot_publish_during_the_drain_and_their_events_are_completed() {
    let broker = Broker::builder().start().expect("valid settings");
    let gate = Gate::closed();
    let (pass, (sender, answers)) = (gate.clone(), channel());
    broker
        .subscribe("x", move |delivery| {
            pass.pass();
            let answer = delivery.broker().map(|broker| broker.publish(event("y")).map_err(|error| error.code()));
            let _ = sender.send(answer);
        })
        .expect("valid");
    broker.publish(event("x")).expect("room");
    gate.wait_for_arrival();
    let stopper = broker.clone();
    let stopping = thread::spawn(move || stopper.stop(PATIENCE));
    wait_until("the stop has begun", || !broker.stats().is_running);
    gate.open();
    assert!(stopping.join().expect("no panic").is_clean());
    assert_eq!(crate::support::receive(&answers, "the answer"), Some(Err("not_running")));
    assert_eq!(broker.stats().completed, 1);
}

#[test]
fn stop_waits_for_a_running_synchronous_publish() {
    let broker = Broker::builder().mode(Mode::Sync).start().expect("valid settings");
    let gate = Gate::closed();
    let (pass, handled) = (gate.clone(), Arc::new(AtomicBool::new(false)));
    let done = Arc::clone(&handled);
    broker
        .subscribe("x", move |_| {
            pass.pass();
            done.store(true, Ordering::SeqCst);
        })
        .expect("valid");
    let publisher = broker.clone();
    let publishing = thread::spawn(move || publisher.publish(event("x")));
    gate.wait_for_arrival();
    let stopper = broker.clone();
    let stopping = thread::spawn(move || (stopper.stop(PATIENCE), handled.load(Ordering::SeqCst)));
    wait_until("the stop has begun", || !broker.stats().is_running);
    gate.open();
    let (report, was_handled) = stopping.join().expect("no panic");
    assert!(report.is_clean() && report.drained == 1 && was_handled, "{report:?}");
    publishing.join().expect("no panic").expect("accepted");
}
