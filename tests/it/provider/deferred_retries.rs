//! Deferred retries: a retry whose delay is longer than a lease waits at the back end, unless events of its key are
//! behind it. Its attempts and errors are kept.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::stats::DeliveryTotals;
use eventbroker::{Broker, RetryPolicy, Scope, Status, SubscribeOptions};
use eventbroker_conformance::loopback::Loopback;

use crate::support::{Gate, PATIENCE, event, keyed, stats_of, wait_until};

const LEASE: Duration = Duration::from_secs(30);
const LONGER: Duration = Duration::from_secs(31);

fn loopback() -> Loopback {
    let loopback = Loopback::new();
    loopback.set_lease_time(LEASE);
    loopback
}

fn broker(loopback: &Loopback) -> Broker {
    Broker::builder().worker_count(4).provider(loopback.provider()).start().expect("a running broker")
}

fn failing() -> SubscribeOptions {
    SubscribeOptions::new("fail.*").name("failing").retry(RetryPolicy::fixed(2, LONGER))
}

/// Subscribes a handler that fails up to an attempt. Returns the attempts.
fn fail_before(broker: &Broker, options: SubscribeOptions, succeeds: u32) -> Receiver<u32> {
    let (sender, attempts) = channel();
    broker
        .subscribe_with(options, move |delivery| {
            // The receiver is gone when the test has received enough.
            let _ = sender.send(delivery.attempt());
            if delivery.attempt() < succeeds { Err(format!("no {}", delivery.attempt())) } else { Ok(()) }
        })
        .expect("a subscription");
    attempts
}

fn next(attempts: &Receiver<u32>) -> u32 {
    attempts.recv_timeout(PATIENCE).expect("the handler is called")
}

fn wait_until_deferred(loopback: &Loopback) {
    loopback.wait_until("the retry is deferred", |server| server.deferred() == 1);
}

#[test]
fn a_deferred_retry_belongs_to_no_member_until_one_claims_it() {
    let loopback = loopback();
    let one = broker(&loopback);
    let at_one = fail_before(&one, failing(), 2);
    let id = one.publish(event("fail.it")).expect("accepted").id;
    assert_eq!(next(&at_one), 1);
    wait_until_deferred(&loopback);
    wait_until("the event is no longer in flight or leased here", || {
        let stats = one.stats();
        (stats.in_flight, stats.bridge.map(|bridge| bridge.leases)) == (0, Some(0))
    });
    let stats = one.stats();
    assert_eq!(stats.subscriptions[0].waiting, 0);
    assert_eq!(stats.deliveries, DeliveryTotals::default(), "a deferred retry has no verdict");
    let lag = one.back_end_stats().expect("the back end answers").subscriptions.remove(0);
    assert_eq!((lag.ready, lag.leased, lag.deferred), (0, 0, 1));
    let known = one.get(&id).expect("the back end answers").expect("known");
    assert_eq!((known.status(), known.retry_count()), (Status::Processing, 0), "the event is open");

    let report = one.stop(PATIENCE);
    assert!(report.is_clean() && report.released == 0, "stop does not wait for a deferred retry: {report:?}");
    let two = broker(&loopback);
    let at_two = fail_before(&two, failing(), 2);
    loopback.end_delays();
    assert_eq!(next(&at_two), 2);
    loopback.wait_until("the event is handled", |server| server.done("failing") == 1);
    let known = two.get(&id).expect("the back end answers").expect("known");
    assert_eq!((known.status(), known.retry_count()), (Status::Completed, 1));
    assert!(two.stop(PATIENCE).is_clean());
    assert_eq!((at_one.try_iter().count(), at_two.try_iter().count()), (0, 0), "each attempt ran once");
}

#[test]
fn attempts_count_across_members_and_the_dead_letter_has_every_error() {
    let loopback = loopback();
    let id = {
        let first = broker(&loopback);
        let attempts = fail_before(&first, failing(), u32::MAX);
        let id = first.publish(event("fail.it")).expect("accepted").id;
        assert_eq!(next(&attempts), 1);
        wait_until_deferred(&loopback);
        assert!(first.stop(PATIENCE).is_clean());
        id
    };
    for attempt in [2, 3] {
        let broker = broker(&loopback);
        let attempts = fail_before(&broker, failing(), u32::MAX);
        loopback.end_delays();
        assert_eq!(next(&attempts), attempt);
        loopback.wait_until("the attempt is settled", |server| server.settlements.len() == attempt as usize);
        assert!(broker.stop(PATIENCE).is_clean());
        assert_eq!(attempts.try_iter().count(), 0);
    }
    let last = broker(&loopback);
    let letters = last.dead_letters(&DeadLetterFilter::default()).expect("the back end answers");
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Exhausted, 3));
    let errors: Vec<(u32, &str)> = letter.errors.iter().map(|it| (it.attempt, &*it.message)).collect();
    assert_eq!(errors, [(1, "no 1"), (2, "no 2"), (3, "no 3")]);
    assert_eq!(letter.first_failed_at, letter.errors[0].at);
    let known = last.get(&id).expect("the back end answers").expect("known");
    assert_eq!((known.status(), known.retry_count()), (Status::Failed, 2));
    assert_eq!(known.error(), Some("no 3"));
}

#[test]
fn of_many_errors_the_first_and_the_latest_are_kept() {
    let loopback = loopback();
    let broker = broker(&loopback);
    let attempts = fail_before(&broker, failing().retry(RetryPolicy::fixed(24, LONGER)), u32::MAX);
    broker.publish(event("fail.it")).expect("accepted");
    for attempt in 1..=25 {
        assert_eq!(next(&attempts), attempt);
        loopback.wait_until("the attempt is settled", |server| server.settlements.len() == attempt as usize);
        loopback.end_delays();
    }
    let letter = broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers").remove(0);
    let kept: Vec<u32> = letter.errors.iter().map(|it| it.attempt).collect();
    assert_eq!(kept, [1].into_iter().chain(7..=25).collect::<Vec<_>>());
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_retry_is_deferred_only_beyond_the_lease_time_and_without_events_behind_it() {
    let plain = || event("fail.it");
    let retry = |delay| failing().retry(RetryPolicy::fixed(1, delay));
    let unable = Loopback::without_deferred_retries();
    unable.set_lease_time(LEASE);
    let cases = [
        ("longer than a lease", loopback(), retry(LEASE + Duration::from_millis(1)), plain(), true),
        ("no longer", loopback(), retry(LEASE), plain(), false),
        ("with a key", loopback(), retry(LONGER), keyed("fail.it", "key"), false),
        ("ordered", loopback(), retry(LONGER).ordered(), plain(), false),
        ("of this process", loopback(), retry(LONGER).scope(Scope::Local), plain(), false),
        ("a back end that keeps none", unable, retry(LONGER), plain(), false),
        ("concurrent", loopback(), retry(LONGER).concurrency(3), plain(), true),
    ];
    for (what, loopback, options, event, is_deferred) in cases {
        let broker = broker(&loopback);
        let attempts = fail_before(&broker, options, 2);
        broker.publish(event).expect("accepted");
        assert_eq!(next(&attempts), 1, "{what}");
        if is_deferred {
            wait_until_deferred(&loopback);
        } else {
            wait_until(what, || stats_of(&broker, "failing").waiting == 1);
        }
        assert_eq!(loopback.inspect(|server| server.deferred()), usize::from(is_deferred), "{what}");
        assert_eq!(stats_of(&broker, "failing").waiting, u64::from(!is_deferred), "{what}");
        broker.stop(Duration::ZERO);
    }
}

#[test]
fn during_a_stop_a_failed_event_is_deferred_and_its_retry_not_waited_for() {
    let loopback = loopback();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let held = gate.clone();
    broker
        .subscribe_with(failing(), move |_| {
            held.pass();
            Err::<(), _>("no")
        })
        .expect("a subscription");
    let id = broker.publish(event("fail.it")).expect("accepted").id;
    gate.wait_for_arrival();
    let report = thread::scope(|scope| {
        let stopping = scope.spawn(|| broker.stop(PATIENCE));
        wait_until("the stop has begun", || !broker.stats().is_running);
        gate.open();
        stopping.join().expect("no panic")
    });
    assert!(report.is_clean() && report.released == 0, "{report:?}");
    assert_eq!(loopback.inspect(|server| server.deferred()), 1);
    assert_eq!(loopback.status(&id), Some(Status::Processing));
}

#[test]
fn a_failure_after_the_loss_of_the_lease_defers_nothing() {
    let loopback = loopback();
    let broker = broker(&loopback);
    let (gate, (sender, calls)) = (Gate::closed(), channel());
    let held = gate.clone();
    let first = AtomicBool::new(true);
    broker
        .subscribe_with(failing().concurrency(2), move |delivery| {
            let _ = sender.send(delivery.attempt());
            if !first.swap(false, Ordering::SeqCst) {
                return Ok(());
            }
            held.pass();
            Err("too late")
        })
        .expect("a subscription");
    broker.publish(event("fail.it")).expect("accepted");
    assert_eq!(next(&calls), 1);
    loopback.expire_leases();
    assert_eq!(next(&calls), 1, "the redelivery is the first attempt, because no attempt was recorded");
    loopback.wait_until("the event is handled", |server| server.done("failing") == 1);
    gate.open();
    wait_until("the late verdict is refused", || broker.stats().bridge.is_some_and(|bridge| bridge.leases_lost == 1));
    assert_eq!(loopback.inspect(|server| server.deferred()), 0);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_suspect_that_fails_is_no_longer_a_suspect() {
    let loopback = loopback();
    let (gate, one) = (Gate::closed(), broker(&loopback));
    let held = gate.clone();
    one.subscribe_with(failing(), move |_| held.pass()).expect("a subscription");
    one.publish(event("fail.it")).expect("accepted");
    gate.wait_for_arrival();
    // Paused, because the holder would claim the event again.
    one.pause(stats_of(&one, "failing").id).expect("known");
    loopback.crash_holders(2);
    let two = broker(&loopback);
    let attempts = fail_before(&two, failing(), 2);
    assert_eq!(next(&attempts), 1);
    wait_until_deferred(&loopback);
    loopback.end_delays();
    assert_eq!(next(&attempts), 2);
    loopback.wait_until("the event is handled", |server| server.done("failing") == 1);
    assert_eq!(loopback.inspect(|server| server.marks), (1, 0), "the second call was not guarded");
    gate.open();
    assert!(two.stop(PATIENCE).is_clean());
    one.stop(PATIENCE);
}
