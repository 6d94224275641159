//! `publish_sync`: keeps the order of the queue, runs free subscriptions on the calling thread, and reports the verdict
//! of every delivery after its retries.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use eventbroker::{
    Broker, Delivery, Event, HandlerError, ManualClock, Outcome, PublishError, RetryPolicy, Status, SubscribeOptions,
    SyncReport, Verdict,
};

use crate::support::{
    Gate, PATIENCE, Settlements, event, keyed, manual_clock, number_of, numbered, receive, stats_of, wait_until,
};

fn running() -> Broker {
    Broker::builder().start().expect("a running broker")
}

fn named(pattern: &str, name: &str) -> SubscribeOptions {
    SubscribeOptions::new(pattern).name(name)
}

/// Publishes synchronously on another thread.
fn publish_elsewhere(broker: &Broker, event: Event) -> Receiver<Result<SyncReport, PublishError>> {
    let (sender, reports) = channel();
    let publisher = broker.clone();
    thread::spawn(move || sender.send(publisher.publish_sync(event)));
    reports
}

/// The deliveries of a report by name: verdict, attempts, error.
fn reported(report: &SyncReport) -> Vec<(&str, Verdict, u32, Option<&str>)> {
    let mut told: Vec<_> =
        report.settled.iter().map(|it| (&*it.name, it.verdict, it.attempts, it.error.as_deref())).collect();
    told.sort_by_key(|it| it.0);
    told
}

/// Advances the clock until the report arrives.
fn wait_with(clock: &ManualClock, step: Duration, reports: &Receiver<Result<SyncReport, PublishError>>) -> SyncReport {
    loop {
        match reports.recv_timeout(Duration::from_millis(2)) {
            Ok(report) => return report.expect("accepted"),
            Err(RecvTimeoutError::Timeout) => clock.advance(step),
            Err(RecvTimeoutError::Disconnected) => panic!("the publishing thread has ended"),
        }
    }
}

#[test]
fn a_free_subscription_runs_on_the_calling_thread() {
    let broker = running();
    let threads: Arc<Mutex<Vec<ThreadId>>> = Arc::default();
    for options in [named("plain", "plain"), named("ordered", "ordered").ordered(), named("own", "own").dedicated(1)] {
        let notes = Arc::clone(&threads);
        let note = move |_: &Delivery<'_>| notes.lock().expect("no panic").push(thread::current().id());
        broker.subscribe_with(options, note).expect("a subscription");
    }
    for event in [event("plain"), event("ordered"), event("own"), keyed("plain", "k")] {
        assert!(broker.publish_sync(event).expect("accepted").is_success());
    }
    assert_eq!(*threads.lock().expect("no panic"), [thread::current().id(); 4]);
}

#[test]
fn publishes_one_after_the_other_all_run_on_the_calling_thread() {
    let broker = running();
    broker.subscribe_with(named("*", "s").concurrency(1), |_| ()).expect("a subscription");
    for _ in 0..1_000 {
        let report = broker.publish_sync(event("a")).expect("accepted");
        assert_eq!(reported(&report), [("s", Verdict::Done, 1, None)]);
    }
    assert_eq!(broker.stats().completed, 1_000);
}

#[test]
fn for_a_busy_subscription_publish_sync_waits_behind_the_queue() {
    for ordered in [false, true] {
        let broker = running();
        let gate = Gate::closed();
        let handled: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (handler_gate, notes) = (gate.clone(), Arc::clone(&handled));
        let handler = move |delivery: &Delivery<'_>| {
            handler_gate.pass();
            notes.lock().expect("no panic").push(number_of(delivery.event()));
        };
        let options = if ordered { named("*", "s").ordered() } else { named("*", "s").concurrency(1) };
        broker.subscribe_with(options, handler).expect("a subscription");
        broker.publish(numbered("a", 1)).expect("accepted");
        gate.wait_for_arrival();
        broker.publish(numbered("a", 2)).expect("accepted");
        broker.publish(numbered("a", 3)).expect("accepted");

        let reports = publish_elsewhere(&broker, numbered("a", 4));
        wait_until("the event is queued", || stats_of(&broker, "s").queued == 3);
        assert!(reports.try_recv().is_err(), "the event is behind others");
        gate.open();
        let report = receive(&reports, "a report").expect("accepted");
        assert_eq!(reported(&report), [("s", Verdict::Done, 1, None)]);
        assert_eq!(*handled.lock().expect("no panic"), [1, 2, 3, 4]);
    }
}

#[test]
fn with_concurrency_one_all_forms_of_publish_keep_the_order() {
    let broker = running();
    let handled: Arc<Mutex<Vec<u64>>> = Arc::default();
    let notes = Arc::clone(&handled);
    let note = move |delivery: &Delivery<'_>| notes.lock().expect("no panic").push(number_of(delivery.event()));
    broker.subscribe_with(named("*", "s").concurrency(1), note).expect("a subscription");
    for number in 0..3_000 {
        if number % 3 == 0 {
            assert!(broker.publish_sync(numbered("a", number)).expect("accepted").is_success());
        } else {
            broker.publish(numbered("a", number)).expect("accepted");
        }
    }
    wait_until("all are handled", || broker.stats().completed == 3_000);
    assert!(handled.lock().expect("no panic").iter().copied().eq(0..3_000));
}

#[test]
fn publish_sync_waits_for_its_own_key_and_not_for_others() {
    let broker = running();
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let handler = move |delivery: &Delivery<'_>| {
        if delivery.event().event_type().as_str() == "held" {
            handler_gate.pass();
        }
    };
    broker.subscribe_with(named("*", "s").concurrency(2), handler).expect("a subscription");
    broker.publish(keyed("held", "k")).expect("accepted");
    gate.wait_for_arrival();
    let reports = publish_elsewhere(&broker, keyed("a", "k"));
    wait_until("the event is queued", || stats_of(&broker, "s").queued == 1);
    assert!(broker.publish_sync(keyed("a", "another")).expect("accepted").is_success());
    assert!(reports.try_recv().is_err(), "the event is behind others");
    gate.open();
    assert!(receive(&reports, "a report").expect("accepted").is_success());
}

#[test]
fn the_report_has_the_verdict_of_each_delivery() {
    let broker = running();
    broker.subscribe_with(named("a.*", "done"), |_| ()).expect("a subscription");
    broker.subscribe_with(named("a.*", "skipping"), |_| Outcome::Skip).expect("a subscription");
    let refuse = |_: &Delivery<'_>| Err::<(), _>(HandlerError::permanent("never"));
    broker.subscribe_with(named("a.*", "permanent"), refuse).expect("a subscription");
    let exhausted = named("a.*", "exhausted").retry(RetryPolicy::fixed(2, Duration::ZERO));
    broker
        .subscribe_with(exhausted, |delivery| Err::<(), _>(format!("failure {}", delivery.attempt())))
        .expect("a subscription");
    let recovering = named("a.*", "recovering").retry(RetryPolicy::fixed(5, Duration::ZERO));
    broker
        .subscribe_with(recovering, |delivery| if delivery.attempt() < 4 { Err("not yet") } else { Ok(()) })
        .expect("a subscription");
    let panicking = named("a.*", "panicking").retry(RetryPolicy::none());
    broker.subscribe_with(panicking, |_| -> () { panic!("oh no") }).expect("a subscription");

    let sent = event("a.b");
    let report = broker.publish_sync(sent.clone()).expect("accepted");

    assert_eq!((&report.id, report.duplicate, &report.open[..]), (sent.id(), false, &[][..]));
    assert_eq!(
        reported(&report),
        [
            ("done", Verdict::Done, 1, None),
            ("exhausted", Verdict::Dead, 3, Some("failure 3")),
            ("panicking", Verdict::Dead, 1, Some("handler panicked: oh no")),
            ("permanent", Verdict::Dead, 1, Some("never")),
            ("recovering", Verdict::Done, 4, None),
            ("skipping", Verdict::Skipped, 1, None),
        ]
    );
    assert!(!report.is_success());
    let errors = ["never", "failure 3", "handler panicked: oh no"];
    assert!(report.error().is_some_and(|error| errors.contains(&error)), "{:?}", report.error());
    let held = broker.get(sent.id()).expect("the memory store").expect("the event");
    assert_eq!(held.status(), Status::Failed);
}

#[test]
fn a_report_is_a_success_if_every_delivery_is_done_or_skipped() {
    let broker = running();
    broker.subscribe("good", |_| ()).expect("a subscription");
    broker.subscribe("good", |_| Outcome::Skip).expect("a subscription");
    broker.subscribe("bad", |_| Outcome::Permanent("no".into())).expect("a subscription");
    let good = broker.publish_sync(event("good")).expect("accepted");
    assert!(good.is_success() && good.error().is_none() && good.settled.len() == 2);
    let bad = broker.publish_sync(event("bad")).expect("accepted");
    assert_eq!((bad.is_success(), bad.error()), (false, Some("no")));
}

#[test]
fn an_event_without_a_subscription_is_completed_immediately() {
    let broker = running();
    let sent = event("unheard");
    let report = broker.publish_sync(sent.clone()).expect("accepted");
    assert!(report.is_success() && report.settled.is_empty());
    let held = broker.get(sent.id()).expect("the memory store").expect("the event");
    assert_eq!(held.status(), Status::Completed);
}

#[test]
fn publish_sync_waits_for_the_delays_of_retries() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("a running broker");
    let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
    broker
        .subscribe_with(named("*", "s").retry(policy), |delivery| match delivery.attempt() {
            4 => Ok(()),
            attempt => Err(format!("failure {attempt}")),
        })
        .expect("a subscription");
    let reports = publish_elsewhere(&broker, event("a"));
    let report = wait_with(&clock, Duration::from_millis(100), &reports);
    assert_eq!(reported(&report), [("s", Verdict::Done, 4, None)]);
    assert!(clock.elapsed() >= Duration::from_secs(1 + 2 + 4), "after {:?}", clock.elapsed());
}

#[test]
fn at_the_timeout_open_deliveries_are_listed_and_go_on() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("a running broker");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let held = move |_: &Delivery<'_>| handler_gate.pass();
    broker.subscribe_with(named("a", "held").concurrency(1), held).expect("a subscription");
    broker.publish(event("a")).expect("accepted");
    gate.wait_for_arrival();
    broker.subscribe_with(named("*", "quick"), |_| ()).expect("a subscription");
    let settlements = Settlements::of(&broker);

    let sent = event("a");
    let began = clock.elapsed();
    let reports = publish_elsewhere(&broker, sent.clone());
    assert_eq!(settlements.next().name, "quick");
    let report = wait_with(&clock, Duration::from_secs(1), &reports);

    assert!(clock.elapsed() - began >= Duration::from_secs(30));
    assert_eq!(reported(&report), [("quick", Verdict::Done, 1, None)]);
    assert_eq!(report.open, ["held".into()]);
    assert!(!report.is_success() && report.error().is_none());
    gate.open();
    assert_eq!(settlements.take(2)[1].id, *sent.id(), "the open delivery is still handled");
    wait_until("both are completed", || broker.stats().completed == 2);
}

#[test]
fn a_delivery_that_waits_for_its_retry_is_open_at_the_timeout() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    broker
        .subscribe_with(named("*", "s").retry(RetryPolicy::fixed(1, Duration::from_secs(60))), |delivery| {
            if delivery.attempt() == 1 { Err("not yet") } else { Ok(()) }
        })
        .expect("a subscription");
    let reports = publish_elsewhere(&broker, event("a"));
    let report = wait_with(&clock, Duration::from_secs(1), &reports);
    assert_eq!((report.open.as_slice(), report.settled.as_slice()), (&["s".into()][..], &[][..]));
    clock.advance(Duration::from_secs(60));
    assert_eq!((settlements.next().attempts, broker.stats().completed), (2, 1));
}

#[test]
fn observers_have_received_every_verdict_when_publish_sync_returns() {
    let broker = running();
    let settlements = Settlements::of(&broker);
    for _ in 0..5 {
        broker.subscribe("*", |_| ()).expect("a subscription");
    }
    for _ in 0..200 {
        let report = broker.publish_sync(event("a")).expect("accepted");
        let seen = settlements.so_far();
        assert_eq!(seen.len(), 5);
        assert!(seen.iter().all(|it| it.id == report.id && it.verdict == Verdict::Done));
        assert_eq!(broker.stats().in_flight, 0);
        let held = broker.get(&report.id).expect("the memory store").expect("the event");
        assert_eq!(held.status(), Status::Completed);
    }
}

#[test]
fn many_synchronous_publishers_at_once_get_their_own_reports() {
    let broker = Broker::builder().worker_count(2).start().expect("a running broker");
    for (name, concurrency) in [("one", 1), ("two", 2)] {
        let options = named("*", name).concurrency(concurrency).retry(RetryPolicy::fixed(1, Duration::ZERO));
        let fail_some = |delivery: &Delivery<'_>| {
            let fails = number_of(delivery.event()).is_multiple_of(10) && delivery.attempt() == 1;
            if fails { Err("not yet") } else { Ok(()) }
        };
        broker.subscribe_with(options, fail_some).expect("a subscription");
    }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..500 {
                    let report = broker.publish_sync(numbered("a", number)).expect("accepted");
                    let attempts = if number % 10 == 0 { 2 } else { 1 };
                    let expected = [("one", Verdict::Done, attempts, None), ("two", Verdict::Done, attempts, None)];
                    assert_eq!(reported(&report), expected);
                }
            });
        }
    });
    assert_eq!(broker.stats().completed, 2_000);
    assert!(broker.stop(PATIENCE).is_clean());
}
