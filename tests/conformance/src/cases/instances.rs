//! Several brokers on one back end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::error::StartError;
use eventbroker::{Broker, Event, HandlerError, PublishError, Scope, Source, Status};

use crate::Subject;
use crate::kit::{
    Gate, Ids, PATIENCE, Settlements, builder, events, finish, listen, listen_with, named, number_of, numbered,
    publish, publish_all, start, status,
};

fn two(subject: &dyn Subject) -> (Broker, Broker) {
    (start(subject), subject.broker(builder("two")))
}

/// Events of one instance reach the subscription of another, with the publisher's instance id.
pub fn events_reach_other_instances(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let (_, calls) = listen(&two, named("there", "far.*"));
    let ids = publish_all(&one, events("far.it", 100));
    for event in calls.read(&ids) {
        assert_eq!(event.instance_id(), Some("one"));
    }
    finish(&two);
    finish(&one);
    calls.assert_no_more(subject, &ids);
}

/// Two members of a subscription share its events. Each event is handled by one of them, and both take part.
pub fn one_member_handles_each_event(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let (handled, calls) = channel();
    // The gate opens when both have received an event.
    let gate = Gate::default();
    for (instance, broker) in [(0, &one), (1, &two)] {
        let (handled, held) = (handled.clone(), gate.clone());
        let options = named("shared", "share.*").concurrency(1).queue_capacity(5);
        listen_with(broker, options, move |delivery| {
            // The receiver is dropped when the case has ended.
            let _ = handled.send((instance, delivery.event().id().clone()));
            held.pass();
        });
    }
    let ids = publish_all(&one, events("share.it", 100));
    let (mut missing, mut members, mut count) = (ids.clone(), HashSet::new(), 0);
    while !missing.is_empty() {
        let (instance, id) = calls.recv_timeout(PATIENCE).expect("one of them is called");
        assert!(ids.contains(&id));
        missing.remove(&id);
        count += 1;
        if members.insert(instance) && members.len() == 2 {
            gate.open();
        }
    }
    finish(&one);
    finish(&two);
    count += calls.try_iter().count();
    if subject.abilities().exact {
        assert_eq!(count, 100, "some were handled twice");
    }
}

/// Each subscription name receives every event, however many instances share it.
pub fn every_subscription_receives_every_event(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let (handled, calls) = channel();
    for broker in [&one, &two] {
        for name in ["mail", "audit"] {
            let handled = handled.clone();
            listen_with(broker, named(name, "order.*"), move |delivery| {
                // The receiver is dropped when the case has ended.
                let _ = handled.send((delivery.name().to_owned(), delivery.event().id().clone()));
            });
        }
    }
    let mut ids = publish_all(&one, events("order.it", 25));
    ids.extend(publish_all(&two, events("order.it", 25)));
    let expected: HashSet<_> =
        ids.iter().flat_map(|id| ["mail", "audit"].map(|it| (it.to_owned(), id.clone()))).collect();
    let mut missing = expected.clone();
    while !missing.is_empty() {
        let call = calls.recv_timeout(PATIENCE).expect("one of them is called");
        assert!(missing.remove(&call) || (expected.contains(&call) && !subject.abilities().exact), "{call:?}");
    }
    finish(&one);
    finish(&two);
}

/// An instance receives only the events of its own subscriptions.
pub fn instances_may_have_different_subscriptions(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let (_, mail) = listen(&one, named("mail", "order.*"));
    let (_, audit) = listen(&two, named("audit", "*.create"));
    let both = publish_all(&one, events("order.create", 20));
    let only_mail = publish_all(&two, events("order.delete", 20));
    let only_audit = publish_all(&one, events("user.create", 20));
    let (for_mail, for_audit) = (&both | &only_mail, &both | &only_audit);
    mail.read(&for_mail);
    audit.read(&for_audit);
    finish(&one);
    finish(&two);
    mail.assert_no_more(subject, &for_mail);
    audit.assert_no_more(subject, &for_audit);
}

/// A local subscription never receives an event that another instance published.
pub fn local_subscriptions_receive_only_their_own_instance(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let (_, local) = listen(&two, named("local", "where.*").scope(Scope::Local));
    let (_, shared) = listen(&two, named("shared", "where.*"));
    let theirs = publish_all(&one, events("where.there", 10));
    shared.read(&theirs);
    let own = publish_all(&two, events("where.here", 10));
    local.read(&own);
    shared.read(&own);
    finish(&two);
    finish(&one);
    local.assert_no_more(subject, &own);
}

/// Deliveries that a member has begun and not settled when it stops are handled by another member.
pub fn unsettled_deliveries_go_to_another_member(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let (_, begun) = listen_with(&one, named("work", "work.*").concurrency(1), |delivery| {
        let deadline = Instant::now() + PATIENCE;
        while !delivery.cancelled() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(1));
        }
        Err::<(), _>("not finished")
    });
    let ids = publish_all(&one, events("work.it", 20));
    begun.next();
    let (_, calls) = listen(&two, named("work", "work.*"));
    assert!(one.stop(Duration::ZERO).finished);
    calls.read(&ids);
    finish(&two);
}

/// The events of a subscription without members wait for its next member.
pub fn a_subscription_without_members_keeps_its_backlog(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let (_, calls) = listen(&two, named("away", "wait.*"));
    calls.read(&publish_all(&one, events("wait.it", 5)));
    finish(&two);
    let ids = publish_all(&one, events("wait.it", 50));
    let three = subject.broker(builder("three"));
    let (_, calls) = listen(&three, named("away", "wait.*"));
    calls.read(&ids);
    finish(&three);
    finish(&one);
    calls.assert_no_more(subject, &ids);
}

/// A broadcast subscription receives each event on every instance, the publisher's included.
pub fn broadcast_reaches_every_instance(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let listeners = [&one, &two].map(|broker| listen(broker, named("all", "wide.*").scope(Scope::Broadcast)).1);
    let mut ids = publish_all(&one, events("wide.it", 25));
    ids.extend(publish_all(&two, events("wide.it", 25)));
    for calls in &listeners {
        calls.read(&ids);
    }
    finish(&one);
    finish(&two);
    for calls in &listeners {
        calls.assert_no_more(subject, &ids);
    }
}

/// The status of an event covers the subscriptions of every instance. The event is open until the last delivery has
/// ended, and failed if one failed, even if another succeeds later.
pub fn an_event_is_failed_if_any_instance_failed(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let gate = Gate::default();
    let held = gate.clone();
    let (_, slow) = listen_with(&one, named("slow", "both.*"), move |_| held.pass());
    listen_with(&two, named("bad", "both.*"), |_| Err::<(), _>(HandlerError::permanent("it broke")));
    let settled = Settlements::of(&two, "bad");
    let handled = Settlements::of(&one, "slow");
    let id = publish(&one, numbered("both.it", 0));
    slow.next();
    assert_eq!(settled.next().id, id);
    finish(&two);
    assert_eq!(status(&one, &id), Some(Status::Processing), "one delivery still runs");
    gate.open();
    assert_eq!(handled.next().id, id);
    finish(&one);
    let three = subject.broker(builder("three"));
    let event = three.get(&id).expect("the back end answers").expect("it is known");
    assert_eq!((event.status(), event.error()), (Status::Failed, Some("it broke")));
    finish(&three);
}

/// An event published on two instances is delivered once.
pub fn duplicate_ids_are_idempotent_across_instances(subject: &dyn Subject) {
    let (one, two) = two(subject);
    let (_, calls) = listen(&two, named("all", "twice.*"));
    let event = Event::builder(Source::System, "twice.it").id("the same").payload(&1).build().expect("a valid event");
    // Neither publisher has the event in its own store.
    let three = subject.broker(builder("three"));
    one.publish(event.clone()).expect("it is accepted");
    three.publish(event.clone()).expect("it is accepted");
    let ids = Ids::from([event.id().clone(), publish(&one, numbered("twice.last", 0))]);
    calls.read(&ids);
    finish(&two);
    finish(&one);
    finish(&three);
    calls.assert_no_more(subject, &ids);
}

/// Publishers retry until they are accepted, while the back end restarts twice. Every event is delivered.
pub fn a_back_end_restart_loses_no_accepted_event(subject: &dyn Subject) {
    const PUBLISHERS: usize = 20;
    const EACH: usize = 15;
    let broker = start(subject);
    let gate = Gate::default();
    let held = gate.clone();
    let mut options = named("all", "again.*");
    if subject.abilities().groups {
        // A small queue, so that most events are in the back end when it restarts.
        options = options.queue_capacity(10);
    }
    let (_, calls) = listen_with(&broker, options, move |_| held.pass());
    let accepted = AtomicUsize::new(0);
    let ids: Ids = thread::scope(|scope| {
        let publisher = || {
            let mut ids = Ids::new();
            for number in 0..EACH {
                let event = numbered("again.it", number);
                let deadline = Instant::now() + PATIENCE;
                while let Err(error) = broker.publish(event.clone()) {
                    assert!(Instant::now() < deadline, "{error}");
                    assert!(matches!(error, PublishError::Full { .. } | PublishError::Unknown { .. }), "{error}");
                    thread::yield_now();
                }
                ids.insert(event.id().clone());
                accepted.fetch_add(1, Ordering::SeqCst);
            }
            ids
        };
        let publishers: Vec<_> = (0..PUBLISHERS).map(|_| scope.spawn(publisher)).collect();
        for share in [3, 2] {
            crate::kit::eventually("a part of the events is published", || {
                accepted.load(Ordering::SeqCst) >= PUBLISHERS * EACH / share
            });
            subject.restart();
        }
        gate.open();
        publishers.into_iter().flat_map(|publisher| publisher.join().expect("a publisher")).collect()
    });
    for event in calls.read(&ids) {
        assert!(number_of(&event) < EACH);
    }
    finish(&broker);
}

/// A second live broker with the same configured name does not start. It starts when the first has stopped.
pub fn an_instance_name_is_exclusive(subject: &dyn Subject) {
    let first = start(subject);
    let second = builder("one").provider(subject.provider()).start();
    assert_eq!(second.map(drop), Err(StartError::InstanceTaken { id: "one".to_owned() }));
    finish(&first);
    drop(first);
    finish(&start(subject));
}

/// Brokers without a configured name get different names.
pub fn a_default_instance_name_gets_a_suffix(subject: &dyn Subject) {
    let [first, second, third] = [(); 3].map(|()| subject.broker(Broker::builder()));
    let name = first.instance_id().to_owned();
    assert_eq!(second.instance_id(), format!("{name}-2"));
    assert_eq!(third.instance_id(), format!("{name}-3"));
    for broker in [first, second, third] {
        finish(&broker);
    }
}
