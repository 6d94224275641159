//! Handlers that fail, panic or hang, and their dead letters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use std::time::Duration;

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::{Broker, HandlerError, Overflow, RetryPolicy, Status, Verdict};

use crate::Subject;
use crate::kit::{
    Gate, Ids, Settlements, dead_letters, events, eventually, finish, listen, listen_with, named, number_of, numbered,
    publish, publish_all, signal, start, status,
};

/// First and second attempts fail until 20 have failed; every delivery is done in the end.
pub fn failed_attempts_are_retried(subject: &dyn Subject) {
    let broker = start(subject);
    let settlements = Settlements::of(&broker, "all");
    let failures = AtomicUsize::new(0);
    let (_, calls) = listen_with(&broker, named("all", "again.*"), move |delivery| {
        let fails = delivery.attempt() <= 2 && failures.fetch_add(1, Ordering::SeqCst) < 20;
        if fails { Err("not now") } else { Ok(()) }
    });
    let ids = publish_all(&broker, events("again.it", 100));
    calls.read(&ids);
    let (mut open, mut attempts) = (ids, 0);
    while !open.is_empty() {
        let settled = settlements.next();
        assert_eq!((settled.verdict, settled.error), (Verdict::Done, None));
        open.remove(&settled.id);
        attempts += settled.attempts;
    }
    assert!(attempts >= 120, "20 attempts have failed, {attempts} were counted");
    finish(&broker);
}

/// A panic counts as a failed attempt with its message, and the worker survives.
pub fn a_panic_is_a_failed_attempt(subject: &dyn Subject) {
    let broker = start(subject);
    let settlements = Settlements::of(&broker, "all");
    let options = named("all", "panic.*").retry(RetryPolicy::fixed(1, Duration::from_millis(1)));
    let (_, calls) = listen_with(&broker, options, |delivery| {
        // `resume_unwind` does not call the panic hook, which would print a report.
        if delivery.event().event_type().as_str() == "panic.once" && delivery.attempt() == 1 {
            std::panic::resume_unwind(Box::new("once"));
        }
        if delivery.event().event_type().as_str() == "panic.always" {
            std::panic::resume_unwind(Box::new(format!("attempt {}", delivery.attempt())));
        }
    });
    // More panics than workers.
    let ids = publish_all(&broker, events("panic.once", 20));
    calls.read(&ids);
    for _ in 0..ids.len() {
        assert_eq!(settlements.next().verdict, Verdict::Done);
    }
    publish(&broker, numbered("panic.always", 0));
    let settled = settlements.next();
    assert_eq!((settled.verdict, settled.attempts), (Verdict::Dead, 2));
    assert_eq!(settled.error.as_deref(), Some("handler panicked: attempt 2"));
    finish(&broker);
}

/// The policy's number of retries, then a dead letter with the error of each attempt.
pub fn retries_end_with_a_dead_letter(subject: &dyn Subject) {
    let broker = start(subject);
    let settlements = Settlements::of(&broker, "all");
    let options = named("all", "dead.*").retry(RetryPolicy::fixed(2, Duration::from_millis(1)));
    let (_, _calls) = listen_with(&broker, options, |delivery| Err::<(), _>(format!("no {}", delivery.attempt())));
    let id = publish(&broker, numbered("dead.it", 7));
    let settled = settlements.next();
    assert_eq!((&settled.id, settled.verdict, settled.attempts), (&id, Verdict::Dead, 3));
    let letters = dead_letters(&broker, 1);
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    assert_eq!((letter.event.id(), &*letter.name), (&id, "all"));
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Exhausted, 3));
    assert_eq!(letter.event.payload().as_str(), "7");
    let errors: Vec<_> = letter.errors.iter().map(|error| (error.attempt, error.message.as_str())).collect();
    assert_eq!(errors, [(1, "no 1"), (2, "no 2"), (3, "no 3")]);
    assert!(letter.first_failed_at <= letter.dead_at);
    finish(&broker);
}

/// A permanent error ends a delivery at the first attempt.
pub fn a_permanent_failure_is_not_retried(subject: &dyn Subject) {
    let broker = start(subject);
    let settlements = Settlements::of(&broker, "all");
    let (_, calls) =
        listen_with(&broker, named("all", "dead.*"), |_| Err::<(), _>(HandlerError::permanent("it never will")));
    let id = publish(&broker, numbered("dead.it", 0));
    let settled = settlements.next();
    assert_eq!((settled.verdict, settled.attempts), (Verdict::Dead, 1));
    assert_eq!(dead_letters(&broker, 1)[0].reason, DeadReason::Permanent);
    finish(&broker);
    assert_eq!(calls.rest().len(), 1);
    assert_eq!(dead_letters(&broker, 1)[0].event.id(), &id);
}

/// Subscriptions that fail for some attempts, or for all, do not change the deliveries of another one.
pub fn failing_subscriptions_do_not_disturb_others(subject: &dyn Subject) {
    let broker = start(subject);
    for number in 0..3 {
        let attempts = Mutex::new(HashMap::new());
        let options = named(&format!("bad {number}"), "mixed.*").retry(RetryPolicy::fixed(5, Duration::from_millis(1)));
        listen_with(&broker, options, move |delivery| {
            let mut attempts = attempts.lock().expect("no panic under the lock");
            let count: &mut usize = attempts.entry(delivery.event().id().clone()).or_default();
            *count += 1;
            if number == 0 || *count <= 5 { Err("not yet") } else { Ok(()) }
        });
    }
    let (_, calls) = listen(&broker, named("good", "mixed.*"));
    let ids = publish_all(&broker, events("mixed.it", 50));
    calls.read(&ids);
    finish(&broker);
    calls.assert_no_more(subject, &ids);
    for letter in broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers") {
        assert_eq!((&*letter.name, letter.attempts), ("bad 0", 6), "the others succeed at the last attempt");
    }
}

/// A handler that hangs blocks only its own subscription, even when the queue of that one is full.
pub fn a_stuck_subscription_does_not_block_others(subject: &dyn Subject) {
    let broker = start(subject);
    let gate = Gate::default();
    let options = named("stuck", "stuck.*").concurrency(1).queue_capacity(1).overflow(Overflow::DropNewest);
    let (inside, wait_until_inside) = signal();
    let held = gate.clone();
    listen_with(&broker, options, move |_| {
        // The receiver is dropped when the case has ended.
        let _ = inside.send(());
        held.pass();
    });
    let (_, calls) = listen(&broker, named("quick", "stuck.*"));
    let mut ids = publish_all(&broker, [numbered("stuck.first", 0)]);
    wait_until_inside();
    ids.extend(publish_all(&broker, events("stuck.it", 50)));
    calls.read(&ids);
    gate.open();
    finish(&broker);
    calls.assert_no_more(subject, &ids);
}

fn one_that_fails_for_good(broker: &Broker) {
    listen_with(broker, named("bad", "poison.*"), |_| Err::<(), _>(HandlerError::permanent("poison")));
}

/// Each dead letter is announced by one event. A notice that becomes a dead letter itself is not announced.
pub fn dead_letters_are_announced_once(subject: &dyn Subject) {
    let broker = start(subject);
    let settlements = Settlements::of(&broker, "notices");
    one_that_fails_for_good(&broker);
    let (_, calls) = listen_with(&broker, named("notices", "eventbroker.dead_letter"), |_| {
        Err::<(), _>(HandlerError::permanent("poison, too"))
    });
    let ids = publish_all(&broker, events("poison.it", 5));
    for _ in 0..ids.len() {
        assert_eq!(settlements.next().verdict, Verdict::Dead);
    }
    finish(&broker);
    let told: Ids = calls
        .rest()
        .iter()
        .map(|notice| {
            let about: serde_json::Value = notice.payload_as().expect("a notice");
            let id = about["event_id"].as_str().expect("an id");
            assert_eq!((&about["subscription"], &about["error"]), (&"bad".into(), &"poison".into()));
            eventbroker::EventId::parse(id).expect("an id")
        })
        .collect();
    assert_eq!(told, ids);
    assert_eq!(broker.dead_letter_count().expect("the back end answers"), 10);
}

/// A notice that finds a full queue is dropped and counted. Its dead letter is kept.
pub fn a_dead_letter_is_kept_when_its_notice_is_lost(subject: &dyn Subject) {
    let broker = start(subject);
    let settlements = Settlements::of(&broker, "bad");
    one_that_fails_for_good(&broker);
    let gate = Gate::default();
    let held = gate.clone();
    let options = named("notices", "eventbroker.dead_letter").concurrency(1).queue_capacity(1);
    let (_, calls) = listen_with(&broker, options, move |_| held.pass());
    publish(&broker, numbered("poison.it", 0));
    calls.next();
    publish_all(&broker, events("poison.it", 3));
    for _ in 0..4 {
        assert_eq!(settlements.next().verdict, Verdict::Dead);
    }
    dead_letters(&broker, 4);
    assert_eq!(broker.stats().dead_letter_notices_lost, 2, "one runs, one is queued");
    gate.open();
    finish(&broker);
}

/// A requeued dead letter is delivered to the subscription that failed, and to no other.
pub fn dead_letters_are_requeued(subject: &dyn Subject) {
    let broker = start(subject);
    let settlements = Settlements::of(&broker, "mended");
    let works = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&works);
    let (_, calls) = listen_with(&broker, named("mended", "letter.*"), move |_| {
        if mended.load(Ordering::SeqCst) { Ok(()) } else { Err(HandlerError::permanent("not yet")) }
    });
    let (_, others) = listen(&broker, named("other", "letter.*"));
    let ids = publish_all(&broker, events("letter.it", 10));
    others.read(&ids);
    for _ in 0..10 {
        assert_eq!(settlements.next().verdict, Verdict::Dead);
    }
    for id in &ids {
        eventually("the event is failed by its dead delivery", || status(&broker, id) == Some(Status::Failed));
    }
    works.store(true, Ordering::SeqCst);
    let letters = dead_letters(&broker, 10);
    assert_eq!(letters.iter().map(|letter| letter.event.id().clone()).collect::<Ids>(), ids);
    broker.requeue(letters[0].id).expect("it is there");
    assert_eq!(settlements.next().id, *letters[0].event.id());
    broker.requeue(letters[0].id).expect_err("it is no dead letter any more");
    assert_eq!(broker.requeue_matching(&DeadLetterFilter::default()).expect("it runs"), 9);
    for _ in 0..9 {
        assert_eq!(settlements.next().verdict, Verdict::Done);
    }
    for id in &ids {
        eventually("the event is completed after the requeue", || status(&broker, id) == Some(Status::Completed));
    }
    assert_eq!(broker.dead_letter_count().expect("the back end answers"), 0);
    finish(&broker);
    calls.rest();
    others.assert_no_more(subject, &ids);
}

/// A handler publishes another event for each delivery, which succeeds only if that event is accepted.
pub fn handlers_may_publish(subject: &dyn Subject) {
    let broker = start(subject);
    let to_publish = Arc::new(Mutex::new(Some(broker.clone())));
    let handle = Arc::clone(&to_publish);
    listen_with(&broker, named("first", "chain.first"), move |delivery| {
        let broker = handle.lock().expect("no panic under the lock").clone().ok_or("the case has ended")?;
        let next = numbered("chain.second", number_of(delivery.event()));
        broker.publish(next).map(|_| ()).map_err(|_| "the second was refused")
    });
    let (_, calls) = listen(&broker, named("second", "chain.second"));
    publish_all(&broker, events("chain.first", 30));
    let mut numbers: Vec<usize> = (0..30).map(|_| number_of(&calls.next())).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
    finish(&broker);
    to_publish.lock().expect("no panic under the lock").take();
}
