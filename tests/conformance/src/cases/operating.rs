//! Observation by operators: the lag of subscriptions, and streams of events.

use eventbroker::dead_letter::DeadLetterFilter;
use eventbroker::stats::SubscriptionLag;
use eventbroker::{Broker, EventId, EventStream, StartPosition, StreamItem};

use crate::Subject;
use crate::kit::{
    DRAIN, Gate, PATIENCE, builder, dead_letters, events, eventually, finish, fragile, id_of, listen, listen_with,
    named, numbered, publish, publish_all, start,
};

fn lag_of(broker: &Broker, name: &str) -> SubscriptionLag {
    let stats = broker.back_end_stats().expect("the back end answers");
    stats.subscriptions.into_iter().find(|lag| lag.name == name).expect("it is there")
}

/// The lag of a subscription: ready, leased and dead deliveries, and the age of the oldest ready one.
pub fn lag_reports_ready_leased_and_dead_deliveries(subject: &dyn Subject) {
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
    eventually("all deliveries are leased by `busy`, and `dead` holds none", || {
        let (busy, dead) = (lag_of(&broker, "busy"), lag_of(&broker, "dead"));
        (busy.ready, busy.leased, dead.leased) == (0, 10, 0)
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

/// A stream receives the matching events of both instances, once, those of one instance in publish order.
pub fn streams_receive_the_events_of_every_instance(subject: &dyn Subject) {
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

/// A stream starts with new events, with the earliest, or after an event.
pub fn streams_start_at_their_position(subject: &dyn Subject) {
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
