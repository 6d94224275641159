//! Retry timing: a failed delivery is retried after the delay of its policy, neither earlier nor later, and exactly as
//! often as the policy says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use eventbroker::{Broker, Delivery, HandlerError, ManualClock, Overflow, RetryPolicy, SubscribeOptions, Verdict};
use parking_lot::Mutex;

use crate::support::{PATIENCE, Settlements, event, manual_clock, number_of, numbered, receive, wait_until};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A broker on a manual clock, with a handler that always fails in the same way.
struct Run {
    broker: Broker,
    clock: ManualClock,
    /// The attempts of the handler under test.
    attempts: Receiver<u32>,
    settlements: Settlements,
}

impl Run {
    fn new(policy: RetryPolicy, fail: impl Fn() -> HandlerError + Send + Sync + 'static) -> Self {
        let clock = manual_clock();
        let broker = Broker::builder().manual_clock(&clock).start().expect("valid settings");
        let (sender, attempts) = channel();
        let handler = move |delivery: &Delivery<'_>| {
            let _ = sender.send(delivery.attempt());
            Err::<(), _>(fail())
        };
        broker.subscribe_with(SubscribeOptions::new("x").retry(policy), handler).expect("valid");
        let once = SubscribeOptions::new("probe").retry(RetryPolicy::fixed(1, Duration::ZERO)).dedicated(1);
        broker
            .subscribe_with(once, |_| Err::<(), _>(HandlerError::retry_after(Duration::ZERO, "again")))
            .expect("valid");
        let settlements = Settlements::of(&broker);
        Self { broker, clock, attempts, settlements }
    }

    /// Advances the clock, and returns when all due retries have been enqueued.
    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        // The probe's retry is due now, and is enqueued after all that were due before.
        self.broker.publish(event("probe")).expect("room");
        assert_eq!(self.settlements.next().event_type, "probe");
    }

    fn waits(&self) -> bool {
        self.broker.stats().subscriptions[0].waiting == 1
    }

    /// Asserts that the next attempt comes after a delay within these bounds.
    fn attempt_comes_within(&self, number: u32, earliest: Duration, latest: Duration) {
        wait_until("the retry waits", || self.waits());
        if !earliest.is_zero() {
            self.advance(earliest - MILLISECOND);
            assert!(self.waits() && self.attempts.try_recv().is_err(), "attempt {number} came before {earliest:?}");
        }
        self.clock.advance(latest - earliest + 2 * MILLISECOND);
        assert_eq!(receive(&self.attempts, "the attempt"), number);
    }
}

#[test]
fn delays_grow_by_the_factor_up_to_the_cap_within_the_jitter() {
    let policy =
        RetryPolicy { max_retries: 5, initial_delay: SECOND, max_delay: 5 * SECOND, backoff_factor: 2.0, jitter: 0.1 };
    let run = Run::new(policy, || HandlerError::retry("no"));
    run.broker.publish(event("x")).expect("room");
    assert_eq!(receive(&run.attempts, "the first attempt"), 1);
    for (number, nominal) in (2..).zip([1, 2, 4, 5, 5]) {
        let nominal = nominal * SECOND;
        run.attempt_comes_within(number, nominal.mul_f64(0.9), nominal.mul_f64(1.1));
    }
    let settled = run.settlements.next();
    assert_eq!((settled.verdict, settled.attempts), (Verdict::Dead, 6));
    run.advance(3_600 * SECOND);
    assert!(run.attempts.try_recv().is_err(), "there are six attempts");
}

#[test]
fn by_default_there_are_three_retries_after_one_two_and_four_seconds() {
    let run = Run::new(RetryPolicy::default(), || HandlerError::retry("no"));
    run.broker.publish(event("x")).expect("room");
    assert_eq!(receive(&run.attempts, "the first attempt"), 1);
    for (number, nominal) in (2..).zip([1, 2, 4]) {
        let nominal = nominal * SECOND;
        run.attempt_comes_within(number, nominal.mul_f64(0.9), nominal.mul_f64(1.1));
    }
    assert_eq!(run.settlements.next().attempts, 4);
}

#[test]
fn without_jitter_the_delay_is_exact() {
    let run = Run::new(RetryPolicy::fixed(2, 10 * SECOND), || HandlerError::retry("no"));
    run.broker.publish(event("x")).expect("room");
    assert_eq!(receive(&run.attempts, "the first attempt"), 1);
    run.attempt_comes_within(2, 10 * SECOND, 10 * SECOND);
    run.attempt_comes_within(3, 10 * SECOND, 10 * SECOND);
    assert_eq!(run.settlements.next().attempts, 3);
}

#[test]
fn a_delay_requested_by_the_handler_is_exact() {
    let run = Run::new(RetryPolicy { max_retries: 1, ..RetryPolicy::default() }, || {
        HandlerError::retry_after(90 * SECOND, "closed")
    });
    run.broker.publish(event("x")).expect("room");
    assert_eq!(receive(&run.attempts, "the first attempt"), 1);
    run.attempt_comes_within(2, 90 * SECOND, 90 * SECOND);
    let settled = run.settlements.next();
    assert_eq!((settled.attempts, settled.error.as_deref()), (2, Some("closed")), "the attempt counts as a retry");
}

#[test]
fn a_delay_requested_by_the_handler_is_at_most_a_week() {
    let week = Duration::from_secs(7 * 24 * 3_600);
    let run = Run::new(RetryPolicy::fixed(1, SECOND), || HandlerError::retry_after(Duration::MAX, "never"));
    run.broker.publish(event("x")).expect("room");
    assert_eq!(receive(&run.attempts, "the first attempt"), 1);
    run.attempt_comes_within(2, week, week);
}

#[test]
fn without_retries_the_first_failure_is_final() {
    let run = Run::new(RetryPolicy::none(), || HandlerError::retry("no"));
    run.broker.publish(event("x")).expect("room");
    let settled = run.settlements.next();
    assert_eq!((settled.verdict, settled.attempts), (Verdict::Dead, 1));
    run.advance(3_600 * SECOND);
    assert_eq!(run.attempts.try_iter().collect::<Vec<_>>(), [1]);
}

#[test]
fn jitter_spreads_retries_that_failed_at_the_same_moment() {
    const EVENTS: usize = 40;
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("valid settings");
    let policy = RetryPolicy { max_retries: 1, jitter: 0.5, ..RetryPolicy::fixed(1, 10 * SECOND) };
    let fail = |delivery: &Delivery<'_>| match delivery.event().event_type().as_str() {
        "j.probe" => Err::<(), _>(HandlerError::retry_after(Duration::ZERO, "again")),
        _ => Err(HandlerError::retry("no")),
    };
    broker.subscribe_with(SubscribeOptions::new("j.*").retry(policy).concurrency(1), fail).expect("valid");
    let settlements = Settlements::of(&broker);
    (0..EVENTS).for_each(|_| drop(broker.publish(event("j.x")).expect("room")));
    wait_until("all retries wait", || broker.stats().subscriptions[0].waiting == EVENTS as u64);
    clock.advance(5 * SECOND - MILLISECOND);
    let mut due = Vec::new();
    for _ in 0..11 {
        clock.advance(SECOND);
        // The retry of the probe is due now, so it comes behind all that were due before.
        broker.publish(event("j.probe")).expect("room");
        due.push(std::iter::from_fn(|| Some(settlements.next())).take_while(|it| it.event_type != "j.probe").count());
    }
    assert!(due.iter().filter(|count| **count > 0).count() >= 4, "retries per second: {due:?}");
    assert_eq!(due.iter().sum::<usize>(), EVENTS, "retries per second: {due:?}");
}

#[test]
fn among_many_events_one_that_always_fails_gets_exactly_its_attempts() {
    const EVENTS: u64 = 3_000;
    let policy = RetryPolicy::fixed(4, MILLISECOND);
    let broker = Broker::builder().worker_count(4).retry_policy(policy).start().expect("valid settings");
    let calls: Arc<Mutex<HashMap<u64, u32>>> = Arc::default();
    let counted = Arc::clone(&calls);
    broker
        .subscribe_with(SubscribeOptions::new("x").overflow(Overflow::Block(PATIENCE)), move |delivery| {
            let number = number_of(delivery.event());
            *counted.lock().entry(number).or_default() += 1;
            if number == 1_234 { Err("poison") } else { Ok(()) }
        })
        .expect("valid");
    (0..EVENTS).for_each(|number| drop(broker.publish(numbered("x", number)).expect("room")));
    wait_until("all are settled", || broker.stats().in_flight == 0);
    let calls = calls.lock();
    assert_eq!(calls.len() as u64, EVENTS);
    assert!(calls.iter().all(|(number, calls)| *calls == if *number == 1_234 { 5 } else { 1 }));
    let stats = broker.stats();
    assert_eq!((stats.dead_letters, stats.attempts, stats.retries), (1, EVENTS + 4, 4));
}

#[test]
fn a_waiting_retry_holds_neither_a_worker_nor_a_place_in_the_queue() {
    let clock = manual_clock();
    let broker = Broker::builder().worker_count(1).max_workers(1).manual_clock(&clock).start().expect("valid settings");
    let options = SubscribeOptions::new("x").queue_capacity(1).retry(RetryPolicy::fixed(1, SECOND));
    let handler = |it: &Delivery<'_>| if number_of(it.event()) < 5 { Err("no") } else { Ok(()) };
    broker.subscribe_with(options, handler).expect("valid");
    let settlements = Settlements::of(&broker);
    for number in 0..5 {
        broker.publish(numbered("x", number)).expect("room");
        wait_until("the retry waits, the queue is empty, and the worker is free", || {
            let stats = broker.stats();
            (stats.subscriptions[0].waiting, stats.subscriptions[0].queued, stats.workers_busy) == (number + 1, 0, 0)
        });
    }
    broker.publish(numbered("x", 5)).expect("room");
    assert_eq!(settlements.next().verdict, Verdict::Done);
    clock.advance(SECOND);
    assert!(settlements.take(5).iter().all(|it| it.verdict == Verdict::Dead && it.attempts == 2));
}
