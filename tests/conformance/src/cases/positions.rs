//! Start positions of subscriptions, and durable broadcasts.

use std::thread;
use std::time::{Duration, SystemTime};

use eventbroker::error::SubscribeError;
use eventbroker::{HandlerError, Scope, StartPosition, Status};

use crate::Subject;
use crate::kit::{
    Ids, builder, dead_letters, events, finish, listen, listen_with, named, numbered, publish, publish_all, start,
    status,
};

/// Each start position delivers the events from there on. Completed events stay completed.
pub fn a_new_subscription_starts_at_its_start_position(subject: &dyn Subject) {
    let broker = start(subject);
    let first = publish_all(&broker, events("begin.it", 10));
    // Times of events have nanoseconds, but not every back end stores them.
    thread::sleep(Duration::from_millis(5));
    let noon = SystemTime::now();
    thread::sleep(Duration::from_millis(5));
    let marked = publish(&broker, numbered("begin.it", 10));
    let last = publish_all(&broker, events("begin.it", 10));
    publish_all(&broker, events("other.it", 3));
    let from_noon = &last | &Ids::from([marked.clone()]);
    let all = &first | &from_noon;
    let scope = if subject.abilities().durable { Scope::Group } else { Scope::Local };
    let begin = |name: &str, position| listen(&broker, named(name, "begin.*").scope(scope).start(position)).1;
    let listeners = [
        (begin("new", StartPosition::New), Ids::new()),
        (begin("earliest", StartPosition::Earliest), all.clone()),
        (begin("from", StartPosition::From(noon)), from_noon),
        (begin("after", StartPosition::After(marked)), last),
    ];
    let then = publish_all(&broker, events("begin.it", 5));
    for (calls, before) in &listeners {
        calls.read(&(before | &then));
    }
    let refusing = named("refusing", "begin.*").start(StartPosition::Earliest);
    let (_, refused) = listen_with(&broker, refusing, |_| Err::<(), _>(HandlerError::permanent("no")));
    refused.read(&(&all | &then));
    finish(&broker);
    for (calls, before) in &listeners {
        calls.assert_no_more(subject, &(before | &then));
    }
    let again = subject.broker(builder("again"));
    for id in &all {
        assert_eq!(status(&again, id), Some(Status::Completed), "later subscriptions do not change the status");
    }
    assert_eq!(dead_letters(&again, 26).len(), 26, "their dead letters are kept");
    finish(&again);
}

/// The next subscription of a known name continues its backlog; its start position is ignored.
pub fn a_start_position_applies_only_to_a_new_subscription(subject: &dyn Subject) {
    let broker = start(subject);
    let earlier = publish_all(&broker, events("once.it", 5));
    let options = || named("reader", "once.*").start(StartPosition::Earliest);
    let (id, calls) = listen(&broker, options());
    calls.read(&earlier);
    broker.unsubscribe(id).expect("it is there");
    finish(&broker);
    let broker = subject.broker(builder("two"));
    let (_, calls) = listen(&broker, options());
    let later = publish_all(&broker, events("once.it", 5));
    calls.read(&later);
    finish(&broker);
    calls.assert_no_more(subject, &later);
}

/// `StartPosition::After` an event that is not held is refused, because its position is unknown.
pub fn a_start_after_an_unknown_event_is_refused(subject: &dyn Subject) {
    let broker = start(subject);
    let unknown = numbered("begin.it", 0).id().clone();
    let options = named("late", "begin.*").start(StartPosition::After(unknown.clone()));
    let refused = broker.subscribe_with(options, |_| ()).expect_err("it is not held");
    let SubscribeError::Refused { reason, .. } = refused else { panic!("{refused}") };
    assert!(reason.contains(&unknown.to_string()), "{reason}");
    let (_, calls) = listen(&broker, named("late", "begin.*"));
    calls.read(&publish_all(&broker, events("begin.it", 2)));
    finish(&broker);
}

/// Events published while an instance is away are delivered when it returns, to its durable broadcast subscription
/// only.
pub fn a_durable_broadcast_receives_missed_events(subject: &dyn Subject) {
    let durable = || named("durable", "wide.*").scope(Scope::Broadcast).durable();
    let passing = || named("passing", "wide.*").scope(Scope::Broadcast);
    let (one, two) = (start(subject), subject.broker(builder("two")));
    let listeners = [&one, &two].map(|broker| listen(broker, durable()).1);
    let before = publish_all(&two, events("wide.it", 5));
    for calls in &listeners {
        calls.read(&before);
    }
    finish(&one);
    drop(one);
    let missed = publish_all(&two, events("wide.it", 20));
    listeners[1].read(&missed);
    let one = start(subject);
    let (_, calls) = listen(&one, durable());
    let (_, passing) = listen(&one, passing());
    let then = publish_all(&two, events("wide.it", 5));
    calls.read(&(&missed | &then));
    passing.read(&then);
    listeners[1].read(&then);
    finish(&one);
    finish(&two);
    calls.assert_no_more(subject, &(&missed | &then));
    passing.assert_no_more(subject, &then);
}
