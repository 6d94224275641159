//! A delivery that failed permanently is kept as a dead letter with its errors, and the number of dead letters is
//! bounded.

use std::time::Duration;

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter, DeadReason};
use eventbroker::{Broker, Config, HandlerError, Pattern, RetryPolicy, Status};
use eventbroker::{Outcome, SubscribeOptions};

use crate::support::{Settlements, event, manual_clock, number_of, numbered, wait_for_retries};

const SECOND: Duration = Duration::from_secs(1);

fn all(broker: &Broker) -> Vec<DeadLetter> {
    broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers")
}

#[test]
fn an_exhausted_delivery_leaves_every_error_with_its_time() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("valid settings");
    let options = SubscribeOptions::new("x").name("fragile").retry(RetryPolicy::fixed(2, SECOND));
    let id = broker
        .subscribe_with(options, |delivery| -> Result<(), HandlerError> {
            match delivery.attempt() {
                2 => panic!("attempt 2"),
                attempt => Err(HandlerError::retry(format!("attempt {attempt}"))),
            }
        })
        .expect("valid");
    let settlements = Settlements::of(&broker);
    let published = broker.publish(numbered("x", 7)).expect("room").id;
    for attempts in 1..=2 {
        wait_for_retries(&broker, attempts, 1);
        assert_eq!(broker.dead_letter_count().expect("the back end answers"), 0);
        clock.advance(SECOND);
    }
    let settled = settlements.next();
    assert_eq!((settled.attempts, settled.error.as_deref()), (3, Some("attempt 3")));

    let letters = all(&broker);
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    assert_eq!((letter.event.id(), number_of(&letter.event)), (&published, 7));
    assert_eq!((letter.subscription, &*letter.name), (Some(id), "fragile"));
    assert_eq!((letter.reason, letter.attempts, letter.requeues), (DeadReason::Exhausted, 3, 0));
    let errors: Vec<_> = letter.errors.iter().map(|error| (error.attempt, error.message.as_str())).collect();
    assert_eq!(errors, [(1, "attempt 1"), (2, "handler panicked: attempt 2"), (3, "attempt 3")]);
    let first = letter.first_failed_at;
    let times: Vec<_> = letter.errors.iter().map(|error| error.at).collect();
    assert_eq!(times, [first, first + SECOND, first + 2 * SECOND]);
    assert_eq!(letter.dead_at, first + 2 * SECOND);
    assert_eq!(broker.get(&published).expect("no back end").map(|event| event.status()), Some(Status::Failed));
    assert_eq!((broker.dead_letter_count().expect("the back end answers"), broker.stats().dead_letters), (1, 1));
}

#[test]
fn a_permanent_failure_is_a_dead_letter_after_one_attempt() {
    let broker = Broker::builder().start().expect("valid settings");
    broker.subscribe("x", |_| Outcome::Permanent("never".into())).expect("valid");
    let report = broker.publish_sync(event("x")).expect("room");
    assert_eq!(report.error(), Some("never"));
    let letter = all(&broker).remove(0);
    assert_eq!((letter.reason, letter.attempts, letter.errors.len()), (DeadReason::Permanent, 1, 1));
    assert_eq!((letter.first_failed_at, &*letter.errors[0].message), (letter.dead_at, "never"));
    assert_eq!((DeadReason::Permanent.as_str(), DeadReason::Exhausted.as_str()), ("permanent", "exhausted"));
}

#[test]
fn of_many_errors_the_first_and_the_latest_are_kept() {
    let broker =
        Broker::builder().retry_policy(RetryPolicy::fixed(29, Duration::ZERO)).start().expect("valid settings");
    broker.subscribe("x", |delivery| Err::<(), _>(delivery.attempt())).expect("valid");
    broker.publish_sync(event("x")).expect("room");
    let letter = all(&broker).remove(0);
    assert_eq!(letter.attempts, 30);
    let kept: Vec<u32> = letter.errors.iter().map(|error| error.attempt).collect();
    assert_eq!(kept, [1].into_iter().chain(12..=30).collect::<Vec<u32>>());
    assert!(letter.errors.iter().all(|error| error.message == error.attempt.to_string()));
}

#[test]
fn dead_letters_are_filtered_by_every_condition_and_read_in_pages() {
    let broker = Broker::builder().retry_policy(RetryPolicy::none()).start().expect("valid settings");
    broker.subscribe_with(SubscribeOptions::new("a.*").name("one"), |_| Err::<(), _>("no")).expect("valid");
    broker
        .subscribe_with(SubscribeOptions::new("a.b").name("two"), |_| Outcome::Permanent("no".into()))
        .expect("valid");
    // One dead letter of `one` for each event, and one of `two` for each `a.b`.
    for event_type in ["a.b", "a.c", "a.b"] {
        broker.publish_sync(event(event_type)).expect("room");
    }
    let letters = all(&broker);
    assert_eq!(letters.len(), 5);
    assert!(letters.is_sorted_by_key(|letter| letter.id));
    let ids = |filter: DeadLetterFilter| {
        broker.dead_letters(&filter).expect("the back end answers").iter().map(|it| it.id).collect::<Vec<_>>()
    };
    let select = |condition: fn(&DeadLetter) -> bool| {
        letters.iter().filter(|it| condition(it)).map(|it| it.id).collect::<Vec<_>>()
    };
    let none = DeadLetterFilter::default;
    let pattern = |text| Some(Pattern::parse(text).expect("valid"));
    assert_eq!(ids(DeadLetterFilter { name: Some("two".into()), ..none() }), select(|it| &*it.name == "two"));
    assert_eq!(ids(DeadLetterFilter { name: Some("three".into()), ..none() }), [] as [u64; 0]);
    let of_type = DeadLetterFilter { event_type: pattern("*.c"), ..none() };
    assert_eq!(ids(of_type), select(|it| it.event.event_type().as_str() == "a.c"));
    let permanent = DeadLetterFilter { reason: Some(DeadReason::Permanent), ..none() };
    assert_eq!(ids(permanent), select(|it| &*it.name == "two"));
    let both = DeadLetterFilter { name: Some("one".into()), reason: Some(DeadReason::Permanent), ..none() };
    assert_eq!(ids(both), [] as [u64; 0]);

    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = ids(DeadLetterFilter { after: cursor, limit: Some(2), ..none() });
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        cursor = Some(*last);
        seen.extend(page);
    }
    assert_eq!(seen, select(|_| true));
    assert_eq!(ids(DeadLetterFilter { limit: Some(0), ..none() }), [] as [u64; 0]);
}

#[test]
fn the_oldest_dead_letters_are_evicted_and_counted() {
    let mut config = Config::default();
    config.max_dead_letters = 5;
    config.retry_policy = RetryPolicy::none();
    let broker = Broker::builder().config(config).start().expect("valid settings");
    broker.subscribe("x", |_| Err::<(), _>("no")).expect("valid");
    for number in 0..12 {
        broker.publish_sync(numbered("x", number)).expect("room");
    }
    let numbers: Vec<u64> = all(&broker).iter().map(|letter| number_of(&letter.event)).collect();
    assert_eq!(numbers, [7, 8, 9, 10, 11]);
    let stats = broker.stats();
    assert_eq!((stats.dead_letters, stats.dead_letters_evicted, stats.deliveries.dead), (5, 7, 12));
}

#[test]
fn purging_removes_exactly_the_matching_dead_letters() {
    let broker = Broker::builder().retry_policy(RetryPolicy::none()).start().expect("valid settings");
    for name in ["one", "two"] {
        broker.subscribe_with(SubscribeOptions::new("x").name(name), |_| Err::<(), _>("no")).expect("valid");
    }
    let id = broker.publish_sync(event("x")).expect("room").id;
    broker.publish_sync(event("x")).expect("room");
    let one = DeadLetterFilter { name: Some("one".into()), ..DeadLetterFilter::default() };
    assert_eq!(
        broker.purge_dead_letters(&DeadLetterFilter { limit: Some(1), ..one.clone() }).expect("the back end answers"),
        1
    );
    assert_eq!(broker.purge_dead_letters(&one).expect("the back end answers"), 1);
    assert_eq!(broker.purge_dead_letters(&one).expect("the back end answers"), 0);
    let left = all(&broker);
    assert!(left.len() == 2 && left.iter().all(|letter| &*letter.name == "two"));
    assert_eq!(broker.get(&id).expect("no back end").map(|event| event.status()), Some(Status::Failed));
    let stats = broker.stats();
    assert_eq!((stats.dead_letters, stats.dead_letters_evicted), (2, 0), "purged dead letters do not count as evicted");
}
