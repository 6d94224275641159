//! Dead letters as operators see them: filters, requeue and purge, across instances.

use std::sync::atomic::Ordering;

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::error::RequeueError;
use eventbroker::{Pattern, Status};

use crate::Subject;
use crate::kit::{
    builder, dead_letters, events, eventually, finish, fragile, listen, listen_with, named, numbered, publish,
    publish_all, start, status,
};

/// Filters by subscription, event type, reason and event, and paging.
pub fn dead_letters_are_filtered_and_paged(subject: &dyn Subject) {
    let broker = start(subject);
    fragile(&broker, "a", "find.*");
    fragile(&broker, "b", "find.it");
    publish_all(&broker, events("find.it", 10));
    let other = publish(&broker, numbered("find.other", 0));
    let all: Vec<u64> = dead_letters(&broker, 21).iter().map(|letter| letter.id).collect();
    assert!(all.is_sorted(), "{all:?}");
    let count = |filter: DeadLetterFilter| broker.dead_letters(&filter).expect("the back end answers").len();
    let any = DeadLetterFilter::default;
    assert_eq!(count(DeadLetterFilter { name: Some("a".to_owned()), ..any() }), 11);
    assert_eq!(count(DeadLetterFilter { event_id: Some(other), ..any() }), 1);
    let pattern = Pattern::parse("*.other").expect("a pattern");
    assert_eq!(count(DeadLetterFilter { event_type: Some(pattern), ..any() }), 1);
    assert_eq!(count(DeadLetterFilter { reason: Some(DeadReason::Exhausted), ..any() }), 0);
    assert_eq!(count(DeadLetterFilter { reason: Some(DeadReason::Permanent), limit: Some(7), ..any() }), 7);
    let mut paged = Vec::new();
    loop {
        let filter = DeadLetterFilter { after: paged.last().copied(), limit: Some(4), ..any() };
        let page = broker.dead_letters(&filter).expect("the back end answers");
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 4);
        paged.extend(page.iter().map(|letter| letter.id));
    }
    assert_eq!(paged, all);
    finish(&broker);
}

/// An instance without the failed subscription lists its dead letters, and requeues them to the instance that serves
/// it.
pub fn dead_letters_of_other_instances_are_listed_and_requeued(subject: &dyn Subject) {
    let (one, two) = (start(subject), subject.broker(builder("two")));
    let works = fragile(&one, "mended", "letter.*");
    let (_, others) = listen(&one, named("other", "letter.*"));
    let ids = publish_all(&two, events("letter.it", 10));
    others.read(&ids);
    let here: Vec<_> = dead_letters(&one, 10).iter().map(|letter| (letter.id, letter.subscription.is_some())).collect();
    let there: Vec<_> =
        dead_letters(&two, 10).iter().map(|letter| (letter.id, letter.subscription.is_none())).collect();
    assert_eq!(here, there, "the same numbers, and a subscription id only where it is served");
    works.store(true, Ordering::SeqCst);
    two.requeue(here[0].0).expect("it is there");
    assert_eq!(two.requeue(here[0].0), Err(RequeueError::NotFound { id: here[0].0 }));
    let three = DeadLetterFilter { limit: Some(3), ..DeadLetterFilter::default() };
    assert_eq!(two.requeue_matching(&three), Ok(3));
    assert_eq!(two.requeue_matching(&DeadLetterFilter::default()), Ok(6));
    for id in &ids {
        eventually("the event is completed after the requeue", || status(&two, id) == Some(Status::Completed));
    }
    assert_eq!(two.dead_letter_count(), Ok(0));
    finish(&one);
    finish(&two);
    others.assert_no_more(subject, &ids);
}

/// Requeued dead letters wait for the next member of the subscription.
pub fn dead_letters_outlive_their_instance(subject: &dyn Subject) {
    let one = start(subject);
    fragile(&one, "mended", "letter.*");
    let ids = publish_all(&one, events("letter.it", 5));
    dead_letters(&one, 5);
    finish(&one);
    let two = subject.broker(builder("two"));
    assert_eq!(two.requeue_matching(&DeadLetterFilter::default()), Ok(5));
    for id in &ids {
        assert_eq!(status(&two, id), Some(Status::Processing), "the event waits for a member");
    }
    let (_, calls) = listen_with(&two, named("mended", "letter.*"), |delivery| match delivery.attempt() {
        1 => Err("attempts count from 1 again"),
        _ => Ok(()),
    });
    calls.read(&ids);
    finish(&two);
    let three = subject.broker(builder("three"));
    for id in &ids {
        assert_eq!(status(&three, id), Some(Status::Completed));
    }
    finish(&three);
}

/// A purged dead letter is deleted; its event stays failed.
pub fn dead_letters_are_purged(subject: &dyn Subject) {
    let broker = start(subject);
    fragile(&broker, "a", "gone.*");
    fragile(&broker, "b", "gone.*");
    let ids = publish_all(&broker, events("gone.it", 10));
    dead_letters(&broker, 20);
    // A dead letter is visible a moment before the status of its event changes.
    let all_failed = || ids.iter().all(|id| status(&broker, id) == Some(Status::Failed));
    eventually("all events are failed", all_failed);
    let of_a = DeadLetterFilter { name: Some("a".to_owned()), ..DeadLetterFilter::default() };
    assert_eq!(broker.purge_dead_letters(&DeadLetterFilter { limit: Some(4), ..of_a.clone() }), Ok(4));
    assert_eq!(broker.purge_dead_letters(&of_a), Ok(6));
    assert_eq!(broker.purge_dead_letters(&of_a), Ok(0));
    assert_eq!(dead_letters(&broker, 10)[0].name.as_ref(), "b");
    assert_eq!(broker.requeue_matching(&of_a), Ok(0));
    assert!(all_failed(), "a purge changes no status");
    finish(&broker);
}

/// `requeue_matching` covers the dead letters that exist at the call, so one that fails again at once is not requeued
/// endlessly.
pub fn a_requeued_dead_letter_that_fails_again_gets_a_new_number(subject: &dyn Subject) {
    let broker = start(subject);
    fragile(&broker, "poison", "letter.*");
    publish_all(&broker, events("letter.it", 10));
    let before = dead_letters(&broker, 10);
    assert_eq!(broker.requeue_matching(&DeadLetterFilter::default()), Ok(10));
    let after = dead_letters(&broker, 10);
    assert!(after[0].id > before[9].id, "{} {}", after[0].id, before[9].id);
    assert!(after.iter().all(|letter| (letter.requeues, letter.attempts) == (1, 1)));
    finish(&broker);
}
