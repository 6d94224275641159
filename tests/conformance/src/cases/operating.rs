//! What operators ask for: where subscriptions begin, dead letters, replay, lag, streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::error::{RequeueError, StartError, SubscribeError};
use eventbroker::provider::{BackendError, Replay};
use eventbroker::stats::SubscriptionLag;
use eventbroker::{
    Broker, Confirm, Event, EventId, EventStream, HandlerError, Pattern, Scope, StartPosition, Status, StreamItem,
};

use crate::Subject;
use crate::kit::{
    DRAIN, Gate, Ids, PATIENCE, builder, dead_letters, events, eventually, finish, listen, listen_with, named,
    numbered, publish, publish_all, start, status,
};

/// A second live process of a configured name does not start; when the first has stopped, it does.
pub fn an_instance_has_its_name_for_itself(subject: &dyn Subject) {
    let first = start(subject);
    let second = builder("one").provider(subject.provider()).start();
    assert_eq!(second.map(drop), Err(StartError::InstanceTaken { id: "one".to_owned() }));
    finish(&first);
    drop(first);
    finish(&start(subject));
}

/// Two processes that configured no name have different ones.
pub fn a_default_name_gets_a_suffix(subject: &dyn Subject) {
    let [first, second, third] = [(); 3].map(|()| subject.broker(Broker::builder()));
    let name = first.instance_id().to_owned();
    assert_eq!(second.instance_id(), format!("{name}-2"));
    assert_eq!(third.instance_id(), format!("{name}-3"));
    for broker in [first, second, third] {
        finish(&broker);
    }
}

/// Events that are accepted before the back end holds them arrive like any other, and their status is told.
pub fn buffered_events_arrive(subject: &dyn Subject) {
    let broker = subject.broker(builder("one").confirm(Confirm::Buffered));
    let (_, shared) = listen(&broker, named("shared", "soon.*"));
    let (_, local) = listen(&broker, named("local", "soon.*").scope(Scope::Local));
    let events = events("soon.it", 300);
    let ids: Ids = events.iter().map(|event| event.id().clone()).collect();
    publish(&broker, events[0].clone());
    for accepted in broker.publish_batch(events[1..250].to_vec()) {
        assert!(!accepted.expect("it is accepted").duplicate);
    }
    for event in &events[250..] {
        broker.publish_async(event.clone()).expect("there is room").wait(Duration::ZERO).expect("it is accepted");
    }
    assert!(broker.publish(events[7].clone()).expect("it is known").duplicate);
    shared.read(&ids);
    local.read(&ids);
    for id in &ids {
        eventually("both have handled it", || status(&broker, id) == Some(Status::Completed));
    }
    finish(&broker);
    shared.assert_no_more(subject, &ids);
    local.assert_no_more(subject, &ids);
}

/// Each position gives what it says, and everything that follows; what was completed stays so.
pub fn a_new_name_starts_at_its_position(subject: &dyn Subject) {
    let broker = start(subject);
    let first = publish_all(&broker, events("begin.it", 10));
    // Times of events are to the nanosecond, but not those of every back end.
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
        assert_eq!(status(&again, id), Some(Status::Completed), "later subscriptions do not change it");
    }
    assert_eq!(dead_letters(&again, 26).len(), 26, "but their dead letters are kept");
    finish(&again);
}

/// The next subscription of a name goes on; its start position means nothing.
pub fn a_start_position_counts_once(subject: &dyn Subject) {
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

/// Nobody knows what comes after an event that is not held.
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

/// What was published while the instance was away is there when it comes back, for the durable one only.
pub fn a_durable_broadcast_goes_on_where_it_was(subject: &dyn Subject) {
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

/// A subscription whose handler always fails, unless it is mended.
fn fragile(broker: &Broker, name: &str, pattern: &str) -> Arc<AtomicBool> {
    let works = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&works);
    listen_with(broker, named(name, pattern), move |_| {
        if mended.load(Ordering::SeqCst) { Ok(()) } else { Err(HandlerError::permanent("not yet")) }
    });
    works
}

/// By name, type, reason, event; page by page.
pub fn dead_letters_are_found_by_what_is_known_of_them(subject: &dyn Subject) {
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

/// An instance that has nothing to do with a dead letter sees it, and has it delivered where it failed.
pub fn dead_letters_are_those_of_every_instance(subject: &dyn Subject) {
    let (one, two) = (start(subject), subject.broker(builder("two")));
    let works = fragile(&one, "mended", "letter.*");
    let (_, others) = listen(&one, named("other", "letter.*"));
    let ids = publish_all(&two, events("letter.it", 10));
    others.read(&ids);
    let here: Vec<_> = dead_letters(&one, 10).iter().map(|letter| (letter.id, letter.subscription.is_some())).collect();
    let there: Vec<_> =
        dead_letters(&two, 10).iter().map(|letter| (letter.id, letter.subscription.is_none())).collect();
    assert_eq!(here, there, "the same numbers, and a subscription only where there is one");
    works.store(true, Ordering::SeqCst);
    two.requeue(here[0].0).expect("it is there");
    assert_eq!(two.requeue(here[0].0), Err(RequeueError::NotFound { id: here[0].0 }));
    let three = DeadLetterFilter { limit: Some(3), ..DeadLetterFilter::default() };
    assert_eq!(two.requeue_matching(&three), Ok(3));
    assert_eq!(two.requeue_matching(&DeadLetterFilter::default()), Ok(6));
    for id in &ids {
        eventually("a requeued delivery mends the event", || status(&two, id) == Some(Status::Completed));
    }
    assert_eq!(two.dead_letter_count(), Ok(0));
    finish(&one);
    finish(&two);
    others.assert_no_more(subject, &ids);
}

/// They wait for whoever serves the subscription next.
pub fn dead_letters_outlive_their_instance(subject: &dyn Subject) {
    let one = start(subject);
    fragile(&one, "mended", "letter.*");
    let ids = publish_all(&one, events("letter.it", 5));
    dead_letters(&one, 5);
    finish(&one);
    let two = subject.broker(builder("two"));
    assert_eq!(two.requeue_matching(&DeadLetterFilter::default()), Ok(5));
    for id in &ids {
        assert_eq!(status(&two, id), Some(Status::Processing), "it waits for its subscription");
    }
    let (_, calls) = listen_with(&two, named("mended", "letter.*"), |delivery| match delivery.attempt() {
        1 => Err("it counts from one again"),
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

/// What is purged is gone; the event stays failed.
pub fn dead_letters_are_purged(subject: &dyn Subject) {
    let broker = start(subject);
    fragile(&broker, "a", "gone.*");
    fragile(&broker, "b", "gone.*");
    let ids = publish_all(&broker, events("gone.it", 10));
    dead_letters(&broker, 20);
    let of_a = DeadLetterFilter { name: Some("a".to_owned()), ..DeadLetterFilter::default() };
    assert_eq!(broker.purge_dead_letters(&DeadLetterFilter { limit: Some(4), ..of_a.clone() }), Ok(4));
    assert_eq!(broker.purge_dead_letters(&of_a), Ok(6));
    assert_eq!(broker.purge_dead_letters(&of_a), Ok(0));
    assert_eq!(dead_letters(&broker, 10)[0].name.as_ref(), "b");
    assert_eq!(broker.requeue_matching(&of_a), Ok(0));
    for id in &ids {
        assert_eq!(status(&broker, id), Some(Status::Failed));
    }
    finish(&broker);
}

/// All that match are those that are there: one that dies at once is not requeued for ever.
pub fn requeued_letters_that_die_again_are_new_ones(subject: &dyn Subject) {
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

fn id_of(event: &Event) -> EventId {
    event.id().clone()
}

/// Done, skipped or dead, what lies in the range comes again, to one subscription.
pub fn replay_delivers_a_range_again(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("again", "range.*"));
    let (_, others) = listen(&broker, named("other", "range.*"));
    let sent: Vec<Event> = events("range.it", 30);
    let ids = publish_all(&broker, sent.iter().cloned());
    calls.read(&ids);
    others.read(&ids);
    for id in &ids {
        eventually("it is handled", || status(&broker, id) == Some(Status::Completed));
    }
    let mut replay = Replay::of("again");
    (replay.after, replay.until) = (Some(id_of(&sent[9])), Some(id_of(&sent[19])));
    assert_eq!(broker.replay_dry_run(&replay).map(|it| it.deliveries), Ok(10));
    replay.from = Some(sent[15].created_at());
    let in_time = sent[10..20].iter().filter(|it| it.created_at() >= sent[15].created_at()).count() as u64;
    assert_eq!(broker.replay_dry_run(&replay).map(|it| it.deliveries), Ok(in_time));
    replay.from = None;
    assert_eq!(calls.rest().len(), 0, "a dry run delivers nothing");
    let replayed = broker.replay(&replay).expect("it can");
    assert_eq!((replayed.deliveries, replayed.next), (10, None));
    calls.read(&sent[10..20].iter().map(id_of).collect());
    for id in &ids {
        eventually("it is completed again", || status(&broker, id) == Some(Status::Completed));
    }
    finish(&broker);
    assert!(!subject.abilities().exact || calls.rest().is_empty());
    others.assert_no_more(subject, &Ids::new());
}

/// A limit, and a cursor to go on; dead letters are taken along.
pub fn replay_goes_on_where_it_stopped(subject: &dyn Subject) {
    let broker = start(subject);
    let works = fragile(&broker, "mended", "range.*");
    let ids = publish_all(&broker, events("range.it", 25));
    dead_letters(&broker, 25);
    works.store(true, Ordering::SeqCst);
    let mut replay = Replay::of("mended");
    replay.limit = 10;
    let mut deliveries = Vec::new();
    loop {
        let replayed = broker.replay(&replay).expect("it can");
        deliveries.push(replayed.deliveries);
        replay.after = match replayed.next {
            Some(next) => Some(next),
            None => break,
        };
    }
    assert_eq!(deliveries, [10, 10, 5]);
    assert_eq!(broker.dead_letter_count(), Ok(0));
    for id in &ids {
        eventually("it is mended", || status(&broker, id) == Some(Status::Completed));
    }
    finish(&broker);
}

/// Only what its pattern matches, also what it never received, and nothing that is under way.
pub fn replay_fits_the_subscription(subject: &dyn Subject) {
    let broker = start(subject);
    let earlier = publish_all(&broker, events("fit.early", 5));
    publish_all(&broker, events("other.it", 5));
    let gate = Gate::default();
    let held = gate.clone();
    let options = named("fits", "fit.*").concurrency(1);
    let (_, calls) = listen_with(&broker, options, move |_| held.pass());
    let open = publish_all(&broker, events("fit.late", 5));
    let first = calls.next();
    let mut replay = Replay::of("fits");
    assert_eq!(broker.replay_dry_run(&replay).map(|it| it.deliveries), Ok(5), "five are open");
    replay.event_type = Some(Pattern::parse("*.late").expect("a pattern"));
    assert_eq!(broker.replay(&replay).map(|it| it.deliveries), Ok(0));
    replay.event_type = None;
    assert_eq!(broker.replay(&replay).map(|it| it.deliveries), Ok(5));
    gate.open();
    let mut expected = &earlier | &open;
    expected.remove(first.id());
    calls.read(&expected);
    replay.subscription = "nobody".to_owned();
    let unknown = broker.replay(&replay).expect_err("there is none");
    assert!(matches!(&unknown, BackendError::Refused(reason) if reason.contains("nobody")), "{unknown}");
    replay = Replay::of("fits");
    replay.limit = 0;
    assert!(matches!(broker.replay(&replay), Err(BackendError::Refused(_))));
    finish(&broker);
    expected.insert(id_of(&first));
    calls.assert_no_more(subject, &expected);
}

fn lag_of(broker: &Broker, name: &str) -> SubscriptionLag {
    let stats = broker.back_end_stats().expect("the back end answers");
    stats.subscriptions.into_iter().find(|lag| lag.name == name).expect("it is there")
}

/// Waiting, leased, dead, and how old.
pub fn lag_tells_what_waits(subject: &dyn Subject) {
    let broker = start(subject);
    let (id, _) = listen(&broker, named("away", "lag.*"));
    broker.unsubscribe(id).expect("it is there");
    fragile(&broker, "dead", "lag.*");
    let gate = Gate::default();
    let held = gate.clone();
    let options = named("busy", "lag.*").concurrency(1).queue_capacity(100);
    let (_, calls) = listen_with(&broker, options, move |_| held.pass());
    let sent = events("lag.it", 10);
    publish_all(&broker, sent.iter().cloned());
    calls.next();
    dead_letters(&broker, 10);
    eventually("all are with the one that is busy", || {
        let busy = lag_of(&broker, "busy");
        (busy.ready, busy.leased) == (0, 10)
    });
    let (away, dead) = (lag_of(&broker, "away"), lag_of(&broker, "dead"));
    assert_eq!((away.pattern.as_str(), away.ready, away.leased, away.dead), ("lag.*", 10, 0, 0));
    assert_eq!(away.oldest_ready, Some(sent[0].created_at()));
    assert_eq!((dead.ready, dead.leased, dead.dead, dead.oldest_ready), (0, 0, 10, None));
    let stats = broker.back_end_stats().expect("the back end answers");
    assert_eq!((stats.dead_letters, stats.dead_letters_expired), (10, 0));
    assert_eq!(broker.dead_letters(&DeadLetterFilter::default()).expect("it answers")[9].id, stats.newest_dead_letter);
    gate.open();
    broker.stop(DRAIN);
}

fn next(stream: &EventStream) -> EventId {
    match stream.recv_timeout(PATIENCE) {
        Ok(StreamItem::Event(event)) => event.id().clone(),
        other => panic!("{other:?}"),
    }
}

/// Both instances' events, once, those of one in the order in which it published them; no other types.
pub fn streams_show_every_instance(subject: &dyn Subject) {
    let (one, two) = (start(subject), subject.broker(builder("two")));
    let stream = two.stream("seen.*").expect("a stream");
    let mut expected = [Vec::new(), Vec::new()];
    for number in 0..20 {
        for (broker, expected) in [&one, &two].into_iter().zip(&mut expected) {
            publish(broker, numbered("hidden.it", number));
            expected.push(publish(broker, numbered("seen.it", number)));
        }
    }
    let seen: Vec<EventId> = (0..40).map(|_| next(&stream)).collect();
    for expected in expected {
        assert_eq!(seen.iter().filter(|id| expected.contains(id)).cloned().collect::<Vec<_>>(), expected);
    }
    finish(&one);
    finish(&two);
    assert_eq!(stream.recv(), Err(eventbroker::error::StreamError::Closed));
}

/// From now, from the beginning, from a time, after an event.
pub fn streams_begin_where_they_should(subject: &dyn Subject) {
    let broker = start(subject);
    let sent = events("seen.it", 10);
    publish_all(&broker, sent.iter().cloned());
    let open = |position| broker.stream_from("seen.*", position).expect("a stream");
    let streams = [
        (open(StartPosition::Earliest), 0),
        (open(StartPosition::After(id_of(&sent[6]))), 7),
        (open(StartPosition::New), 10),
    ];
    let last = publish(&broker, numbered("seen.it", 10));
    for (stream, first) in &streams {
        let expected: Vec<_> = sent[*first..].iter().map(id_of).chain([last.clone()]).collect();
        let seen: Vec<_> = expected.iter().map(|_| next(stream)).collect();
        assert_eq!(seen, expected);
    }
    broker.stream_from("seen.*", StartPosition::After(id_of(&numbered("seen.it", 0)))).expect_err("it is not held");
    finish(&broker);
}
