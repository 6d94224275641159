//! Retries with a delay longer than the lease wait at the server and survive the member that failed. Any member runs
//! them when they are due.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::retries::{DELAY, LEASE, LONG, Site, XGROUP, fail_before, failing, next, status};
use crate::support::{PATIENCE, ask, event, start, wait_until};
use eventbroker::dead_letter::DeadLetterFilter;
use eventbroker::error::FullLimit;
use eventbroker::query::Filter;
use eventbroker::{Broker, HandlerError, PublishError, Scope};
use eventbroker_redis::Status;

#[test]
fn a_deferred_retry_survives_its_member_and_runs_once_when_due() {
    for (partitions, kept) in [(0, Status::Failures), (2, Status::Failures), (0, Status::Full)] {
        let site = Site::new(partitions);
        let redis = site.redis.clone().status(kept);
        let one = start(&redis);
        let at_one = fail_before(&one, failing(1, DELAY), 2);
        let id = one.publish(event("fail.it")).expect("it is accepted").id;
        let (attempt, failed) = next(&at_one);
        assert_eq!(attempt, 1);
        site.wait_until_deferred();
        wait_until("its lease has ended", || one.stats().bridge.is_some_and(|bridge| bridge.leases == 0));
        assert_eq!(site.pending(), 0, "no consumer holds it");
        assert_eq!(status(&one, &id), (eventbroker::Status::Processing, 0), "it is open");
        let open = Filter { status: Some(eventbroker::Status::Processing), ..Filter::default() };
        assert_eq!(one.list(&open).expect("it answers").events.len(), 1);
        let lag = one.back_end_stats().expect("it answers").subscriptions.remove(0);
        assert_eq!((lag.ready, lag.leased, lag.deferred), (0, 0, 1));
        let report = one.stop(PATIENCE);
        assert!(report.is_clean() && report.released == 0, "the stop did not wait for the retry: {report:?}");
        assert_eq!(site.later(XGROUP), 1);

        let (two, three) = (start(&redis), start(&redis));
        let at_two = fail_before(&two, failing(1, DELAY), 2);
        let at_three = fail_before(&three, failing(1, DELAY), 2);
        let mut again = Vec::new();
        wait_until("it is tried again", || {
            again.extend(at_two.try_iter().chain(at_three.try_iter()));
            !again.is_empty()
        });
        assert_eq!(again[0].0, 2);
        assert!(again[0].1 - failed >= DELAY, "too early: {:?}", again[0].1 - failed);
        wait_until("it is handled", || !site.is_again(&id));
        assert_eq!(status(&two, &id), (eventbroker::Status::Completed, 1));
        assert_eq!((site.later(XGROUP), site.pending()), (0, 0));
        assert!(two.stop(PATIENCE).is_clean() && three.stop(PATIENCE).is_clean());
        assert_eq!(again.len() + at_two.try_iter().count() + at_three.try_iter().count(), 1, "it was tried once");
        let length: usize = ask(&mut site.client(), &["XLEN", &site.key(&format!("again:{XGROUP}"))]);
        assert_eq!(length, 0);
    }
}

#[test]
fn a_dead_letter_after_deferred_retries_has_every_error_and_its_requeues() {
    for partitions in [0, 2] {
        let site = Site::new(partitions);
        let broker = start(&site.redis);
        let attempts = fail_before(&broker, failing(2, LEASE + Duration::from_millis(1)), u32::MAX);
        let id = broker.publish(event("fail.it")).expect("it is accepted").id;
        for requeues in 0..2 {
            for attempt in 1..=3 {
                assert_eq!(next(&attempts).0, attempt);
            }
            let mut letters = Vec::new();
            wait_until("it is dead", || {
                letters = broker.dead_letters(&DeadLetterFilter::default()).expect("it answers");
                !letters.is_empty()
            });
            let letter = &letters[0];
            assert_eq!((letter.attempts, letter.requeues), (3, requeues));
            let errors: Vec<(u32, &str)> = letter.errors.iter().map(|it| (it.attempt, &*it.message)).collect();
            assert_eq!(errors, [(1, "no 1"), (2, "no 2"), (3, "no 3")]);
            assert_eq!(letter.first_failed_at, letter.errors[0].at);
            assert!(letter.errors.is_sorted_by_key(|it| it.at) && letter.dead_at >= letter.errors[2].at);
            assert_eq!(status(&broker, &id), (eventbroker::Status::Failed, 2));
            broker.requeue(letter.id).expect("it is made again");
        }
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

#[test]
fn the_number_of_retries_shows_while_a_retry_is_deferred() {
    let site = Site::new(0);
    let broker = start(&site.redis);
    let (sender, attempts) = channel();
    broker
        .subscribe_with(failing(3, DELAY), move |delivery| {
            let _ = sender.send((delivery.attempt(), Instant::now()));
            let delay = if delivery.attempt() == 1 { LEASE + Duration::from_millis(1) } else { LONG };
            Err::<(), _>(HandlerError::retry_after(delay, "no"))
        })
        .expect("a subscription");
    let id = broker.publish(event("fail.it")).expect("it is accepted").id;
    assert_eq!((next(&attempts).0, next(&attempts).0), (1, 2));
    site.wait_until_deferred();
    assert_eq!(status(&broker, &id), (eventbroker::Status::Processing, 1));
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_durable_broadcast_subscription_gets_its_deferred_retry_after_a_restart() {
    let site = Site::new(0);
    let here = || {
        let provider = site.redis.open().expect("it opens");
        Broker::builder().instance_id("here").provider(provider).start().expect("it starts")
    };
    let options = || failing(1, DELAY).scope(Scope::Broadcast).durable();
    let one = here();
    let attempts = fail_before(&one, options(), 2);
    let elsewhere = start(&site.redis);
    elsewhere.publish(event("fail.it")).expect("it is accepted");
    assert_eq!(next(&attempts).0, 1);
    wait_until("its retry is deferred", || site.later(&format!("{XGROUP}@here")) == 1);
    assert!(one.stop(PATIENCE).is_clean());
    let one = here();
    let attempts = fail_before(&one, options(), 2);
    assert_eq!(next(&attempts).0, 2);
    assert!(one.stop(PATIENCE).is_clean() && elsewhere.stop(PATIENCE).is_clean());
}

#[test]
fn removing_a_subscription_removes_its_deferred_retries() {
    for partitions in [0, 2] {
        let site = Site::new(partitions);
        let broker = start(&site.redis);
        let attempts = fail_before(&broker, failing(1, LONG), 2);
        let id = broker.publish(event("fail.it")).expect("it is accepted").id;
        assert_eq!(next(&attempts).0, 1);
        site.wait_until_deferred();
        let subscription = broker.stats().subscriptions[0].id;
        broker.unsubscribe(subscription).expect("it is there");
        assert_eq!(site.later(XGROUP), 1, "the retry stays for other members");
        broker.remove_subscription("failing").expect("it is known");
        assert!(!site.exists(&format!("later:{XGROUP}")) && !site.is_again(&id));
        assert_eq!(status(&broker, &id).0, eventbroker::Status::Completed, "no delivery of the event is open");
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

#[test]
fn deleting_an_event_removes_its_deferred_retry() {
    let site = Site::new(0);
    let broker = start(&site.redis);
    let attempts = fail_before(&broker, failing(1, LONG), 2);
    let [gone, kept] = ["fail.it", "fail.other"].map(|it| broker.publish(event(it)).expect("it is accepted").id);
    assert_eq!((next(&attempts).0, next(&attempts).0), (1, 1));
    wait_until("both are deferred", || site.later(XGROUP) == 2);
    let store = site.redis.open().expect("it opens").store.expect("a store");
    assert!(store.delete(&gone).expect("it answers"));
    assert_eq!((site.later(XGROUP), site.is_again(&gone), site.is_again(&kept)), (1, false, true));
    let left: Vec<String> = ask(&mut site.client(), &["ZRANGE", &site.key(&format!("later:{XGROUP}")), "0", "-1"]);
    assert!(left[0].contains(&kept.to_string()));
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn deferred_retries_count_for_the_backlog() {
    let site = Site::new(0);
    let redis = site.redis.clone().max_backlog(2);
    let broker = start(&redis);
    let attempts = fail_before(&broker, failing(1, LONG), 2);
    let mut refused = None;
    wait_until("the deferred retries reach max_backlog", || {
        refused = broker.publish(event("fail.it")).err();
        let stored = usize::from(refused.is_none());
        // One event at a time: only deferred retries count towards the backlog.
        let before = attempts.try_iter().count();
        (before..stored).for_each(|_| _ = next(&attempts));
        wait_until("it is deferred", || site.pending() == 0);
        refused.is_some()
    });
    let is_backlog = matches!(refused, Some(PublishError::Full { limit: FullLimit::Backlog { max: 2 }, .. }));
    assert!(is_backlog, "{refused:?}");
    assert_eq!(attempts.try_iter().count(), 0);
    assert!(broker.stop(PATIENCE).is_clean());
    let waits = site.later(XGROUP);
    // The stream counts as in use until the liveness keys of the stopped broker expire.
    let mut problem = String::new();
    wait_until("repartitioning is refused because deliveries wait", || {
        problem = redis.clone().partitions(2).repartition().expect_err("something waits").to_string();
        !problem.contains("instances use it")
    });
    assert!(problem.contains(&format!("{waits} deliveries wait")), "{problem}");
}

#[test]
fn many_retries_that_are_due_at_once_run_once_each() {
    const EVENTS: usize = 250;
    for partitions in [0, 2] {
        let site = Site::new(partitions);
        let broker = start(&site.redis);
        let attempts = fail_before(&broker, failing(1, DELAY), 2);
        (0..EVENTS).for_each(|_| drop(broker.publish(event("fail.it")).expect("it is accepted")));
        let all: Vec<u32> = (0..2 * EVENTS).map(|_| next(&attempts).0).collect();
        assert_eq!(all.iter().filter(|attempt| **attempt == 2).count(), EVENTS);
        wait_until("all are handled", || site.later(XGROUP) + site.pending() == 0);
        assert!(broker.stop(PATIENCE).is_clean());
        assert_eq!(attempts.try_iter().count(), 0);
    }
}
