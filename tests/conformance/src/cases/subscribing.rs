//! Subscribing, unsubscribing, removing and pausing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use eventbroker::{Broker, Status};

use crate::Subject;
use crate::kit::{
    Gate, Ids, builder, events, eventually, finish, listen, listen_with, named, publish_all, start, status,
};

/// While other subscriptions come and go, a lasting one receives every event.
pub fn subscribing_and_unsubscribing_lose_nothing(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("lasting", "come.*"));
    let mut ids = thread::scope(|scope| {
        for number in 0..10 {
            let broker = &broker;
            scope.spawn(move || {
                for _ in 0..5 {
                    let (id, _calls) = listen(broker, named(&format!("passing {number}"), "come.*"));
                    assert_eq!(broker.unsubscribe(id), Ok(0));
                    broker.unsubscribe(id).expect_err("it has gone");
                }
            });
        }
        publish_all(&broker, events("come.during", 50))
    });
    ids.extend(publish_all(&broker, events("come.after", 50)));
    calls.read(&ids);
    finish(&broker);
    calls.assert_no_more(subject, &ids);
}

fn has(broker: &Broker, name: &str) -> bool {
    broker.stats().subscriptions.iter().any(|subscription| &*subscription.name == name)
}

/// When `unsubscribe` returns, no call is running, and no further call begins.
pub fn unsubscribe_waits_for_the_running_call(subject: &dyn Subject) {
    let broker = start(subject);
    let gate = Gate::default();
    let ended = Arc::new(AtomicBool::new(false));
    let (held, done) = (gate.clone(), Arc::clone(&ended));
    let (id, calls) = listen_with(&broker, named("slow", "slow.*").concurrency(1), move |_| {
        held.pass();
        done.store(true, Ordering::SeqCst);
    });
    publish_all(&broker, events("slow.it", 3));
    calls.next();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let running = broker.unsubscribe(id).expect("it is there");
            (running, ended.load(Ordering::SeqCst))
        });
        eventually("the subscription has gone", || !has(&broker, "slow"));
        gate.open();
        assert_eq!(waiting.join().expect("no panic"), (0, true));
    });
    publish_all(&broker, events("slow.it", 3));
    broker.stop(crate::kit::DRAIN);
    assert_eq!(calls.rest().len(), 0, "no call begins after unsubscribe");
}

/// The backlog of a subscription is delivered to the next one with that name.
pub fn a_subscription_resumes_its_backlog(subject: &dyn Subject) {
    let broker = start(subject);
    let (first, _calls) = listen(&broker, named("reader", "batch.*"));
    broker.unsubscribe(first).expect("it is there");
    let ids = publish_all(&broker, events("batch.it", 50));
    let mut missing = ids.clone();
    while !missing.is_empty() {
        let (id, calls) = listen(&broker, named("reader", "batch.*").concurrency(1).queue_capacity(10));
        for _ in 0..missing.len().min(10) {
            let event = calls.next();
            assert!(ids.contains(event.id()), "an unexpected event arrived: {event:?}");
            missing.remove(event.id());
        }
        broker.unsubscribe(id).expect("it is there");
        missing.retain({
            let more: Ids = calls.rest().iter().map(|event| event.id().clone()).collect();
            move |id| !more.contains(id)
        });
    }
    broker.stop(crate::kit::DRAIN);
}

/// Removing a subscription drops its backlog. The next one with that name may have another pattern.
pub fn a_removed_subscription_starts_without_a_backlog(subject: &dyn Subject) {
    let broker = start(subject);
    let (first, _calls) = listen(&broker, named("reader", "batch.*"));
    broker.remove_subscription("reader").expect_err("it is in use");
    broker.unsubscribe(first).expect("it is there");
    let gone = publish_all(&broker, events("batch.it", 5));
    assert_eq!(broker.remove_subscription("reader"), Ok(true));
    assert_eq!(broker.remove_subscription("reader"), Ok(false), "it is gone");
    for id in &gone {
        eventually("the event is completed without the removed subscription", || {
            status(&broker, id) == Some(Status::Completed)
        });
    }
    let (_, calls) = listen(&broker, named("reader", "other.*"));
    let ids = publish_all(&broker, events("other.it", 5));
    calls.read(&ids);
    finish(&broker);
    calls.assert_no_more(subject, &ids);
}

/// Another pattern under a known name is refused with an error that shows both. With `change_pattern` it replaces the
/// pattern for every member.
pub fn a_second_pattern_is_refused_without_change_pattern(subject: &dyn Subject) {
    let (one, two) = (start(subject), subject.broker(builder("two")));
    let (first, old_calls) = listen(&one, named("reader", "old.*"));
    let error = two.subscribe_with(named("reader", "*.new"), |_| ()).expect_err("it has another pattern");
    let text = error.to_string();
    assert!(text.contains("old.*") && text.contains("*.new"), "{text}");
    assert_eq!(two.stats().subscriptions.len(), 0);
    one.unsubscribe(first).expect("it is there");
    let kept = publish_all(&one, events("old.it", 5));
    let (_, calls) = listen(&two, named("reader", "*.new").change_pattern());
    calls.read(&kept);
    let mut ids = publish_all(&one, events("its.new", 5));
    ids.extend(publish_all(&two, events("its.new", 5)));
    let others = publish_all(&two, events("old.it", 5));
    calls.read(&ids);
    for id in &others {
        eventually("the event is completed without a delivery", || status(&two, id) == Some(Status::Completed));
    }
    finish(&one);
    finish(&two);
    ids.extend(kept);
    calls.assert_no_more(subject, &ids);
    assert_eq!(old_calls.rest().len(), 0);
}

/// A paused member begins no further calls. Its queued deliveries go to another member. It continues when resumed.
pub fn a_paused_member_releases_its_queued_deliveries(subject: &dyn Subject) {
    let (one, two) = (start(subject), subject.broker(builder("two")));
    let gate = Gate::default();
    let held = gate.clone();
    let (id, first) = listen_with(&one, named("shared", "batch.*").concurrency(1), move |_| held.pass());
    let mut ids = publish_all(&one, events("batch.it", 20));
    let begun = first.next();
    eventually("the rest is queued at this member", || one.stats().subscriptions[0].queued == 19);
    assert_eq!(one.pause(id), Ok(1));
    let (other, second) = listen(&two, named("shared", "batch.*"));
    ids.remove(begun.id());
    second.read(&ids);
    let more = publish_all(&one, events("batch.it", 20));
    second.read(&more);
    gate.open();
    two.unsubscribe(other).expect("it is there");
    let last = publish_all(&two, events("batch.it", 20));
    assert_eq!(first.rest().len(), 0, "no call has begun");
    one.resume(id).expect("it is there");
    first.read(&last);
    finish(&one);
    finish(&two);
    second.assert_no_more(subject, &ids.union(&more).cloned().collect());
}
