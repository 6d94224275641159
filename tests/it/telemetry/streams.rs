//! Streams: a stream yields accepted events and reports its gaps. It blocks no publisher and affects no delivery.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::error::StreamError;
use eventbroker::{Broker, Event, EventStream, HandlerError, Status, StreamItem, SubscribeOptions};

use crate::support::{Gate, PATIENCE, event, in_time, number_of, numbered, receive};

fn unread(stream: &EventStream) -> Vec<StreamItem> {
    std::iter::from_fn(|| stream.try_recv().ok()).collect()
}

fn numbers(items: &[StreamItem]) -> Vec<u64> {
    items
        .iter()
        .map(|item| match item {
            StreamItem::Event(event) => number_of(event),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_stream_yields_matching_events_from_its_creation_on_in_publish_order() {
    let broker = Broker::builder().start().expect("valid settings");
    broker.publish(numbered("a.b", 0)).expect("room");
    let stream = broker.stream("a.*").expect("valid");
    let everything = broker.stream("*").expect("valid");
    for number in 1..=100 {
        broker.publish(numbered("a.b", number)).expect("room");
        broker.publish(numbered("other", number)).expect("room");
    }
    assert_eq!(numbers(&unread(&stream)), (1..=100).collect::<Vec<u64>>());
    assert_eq!(unread(&everything).len(), 200);
    assert!(broker.stream("a..b").is_err());
}

#[test]
fn each_form_of_receiving_waits_as_documented() {
    let broker = Broker::builder().start().expect("valid settings");
    let stream = broker.stream("x").expect("valid");
    assert_eq!(stream.try_recv(), Err(StreamError::Timeout));
    let started = Instant::now();
    assert_eq!(stream.recv_timeout(Duration::from_millis(30)), Err(StreamError::Timeout));
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(StreamError::Timeout.to_string(), "no event arrived in time");

    broker.publish(numbered("x", 1)).expect("room");
    assert_eq!(numbers(&[stream.recv_timeout(PATIENCE).expect("an event")]), [1]);
    let (sender, received) = channel();
    let waiting = thread::spawn(move || {
        for item in stream {
            let _ = sender.send(item);
        }
    });
    for number in 2..5 {
        broker.publish(numbered("x", number)).expect("room");
        assert_eq!(numbers(&[receive(&received, "the event")]), [number]);
    }
    assert!(broker.stop(PATIENCE).is_clean());
    in_time("the end of the iteration", move || waiting.join()).expect("no panic");
}

#[test]
fn a_full_stream_drops_the_oldest_events_reports_the_gap_and_counts_them() {
    let capacity = EventStream::CAPACITY as u64;
    let broker = Broker::builder().start().expect("valid settings");
    let full = broker.stream("x").expect("valid");
    let other = broker.stream("y").expect("valid");
    // No thread reads, and no publisher blocks.
    for number in 0..capacity + 10 {
        broker.publish(numbered("x", number)).expect("room");
    }
    assert_eq!(broker.stats().stream_gaps, 10);
    assert_eq!(full.recv(), Ok(StreamItem::Gap(10)));
    let kept = numbers(&unread(&full));
    assert_eq!(kept, (10..capacity + 10).collect::<Vec<u64>>());
    // The next gap starts at zero.
    broker.publish(numbered("x", 1)).expect("room");
    assert_eq!(numbers(&unread(&full)), [1]);
    for number in 0..capacity + 3 {
        broker.publish(numbered("x", number)).expect("room");
    }
    assert_eq!(full.recv_timeout(PATIENCE), Ok(StreamItem::Gap(3)));
    assert_eq!(numbers(&[full.try_recv().expect("an event")]), [3]);
    assert_eq!((broker.stats().stream_gaps, other.try_recv()), (13, Err(StreamError::Timeout)));
    let stats = broker.stats();
    assert_eq!((stats.completed, stats.in_flight), (2 * capacity + 14, 0));
}

#[test]
fn read_and_missed_events_add_up_under_concurrent_publishes() {
    const EACH: u64 = 20_000;
    let broker = Broker::builder().start().expect("valid settings");
    let stream = broker.stream("x").expect("valid");
    let publishers: Vec<_> = (0..2)
        .map(|_| {
            let broker = broker.clone();
            thread::spawn(move || {
                (0..EACH).for_each(|number| drop(broker.publish(numbered("x", number)).expect("room")))
            })
        })
        .collect();
    let reader = thread::spawn(move || {
        let (mut read, mut missed) = (0, 0);
        for item in stream {
            match item {
                StreamItem::Event(_) => read += 1,
                StreamItem::Gap(gap) => missed += gap,
                other => panic!("{other:?}"),
            }
        }
        (read, missed)
    });
    publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
    assert!(broker.stop(PATIENCE).is_clean());
    let (read, missed) = in_time("the reader", move || reader.join()).expect("no panic");
    assert_eq!((read + missed, missed), (2 * EACH, broker.stats().stream_gaps));
}

#[test]
fn a_stream_ends_after_the_stop_once_everything_was_read() {
    let broker = Broker::builder().start().expect("valid settings");
    let stream = broker.stream("x").expect("valid");
    let waiting = broker.stream("y").expect("valid");
    let end = thread::spawn(move || waiting.recv());
    (0..3).for_each(|number| drop(broker.publish(numbered("x", number)).expect("room")));
    // An open stream does not block the stop.
    let stopper = broker.clone();
    assert!(in_time("the stop", move || stopper.stop(PATIENCE)).is_clean());
    assert_eq!(in_time("the end", move || end.join()).expect("no panic"), Err(StreamError::Closed));
    assert_eq!(numbers(&unread(&stream)), [0, 1, 2]);
    assert_eq!(stream.try_recv(), Err(StreamError::Closed));
    assert_eq!(stream.recv_timeout(PATIENCE), Err(StreamError::Closed));
    assert_eq!(stream.recv(), Err(StreamError::Closed));
    assert_eq!(StreamError::Closed.to_string(), "the stream has ended: the broker has stopped");
    let late = broker.stream("x").expect("valid");
    assert_eq!(late.try_recv(), Err(StreamError::Closed), "a stream that is created after the stop has ended");
}

#[test]
fn dropping_a_stream_leaves_others_of_the_same_pattern() {
    let broker = Broker::builder().start().expect("valid settings");
    let capacity = EventStream::CAPACITY;
    let [first, second] = [(); 2].map(|()| broker.stream("x").expect("valid"));
    drop(first);
    (0..capacity as u64).for_each(|number| drop(broker.publish(numbered("x", number)).expect("room")));
    assert_eq!(unread(&second).len(), capacity);
    drop(second);
    // No stream is left that could have a gap.
    (0..2 * capacity as u64).for_each(|number| drop(broker.publish(numbered("x", number)).expect("room")));
    assert_eq!(broker.stats().stream_gaps, 0);
}

#[test]
fn a_stream_yields_accepted_events_only_and_once_and_changes_no_status() {
    let broker = Broker::builder().start().expect("valid settings");
    let stream = broker.stream("*").expect("valid");
    let gate = Gate::closed();
    let pass = gate.clone();
    let options = SubscribeOptions::new("full").ordered().queue_capacity(1);
    broker.subscribe_with(options, move |_| pass.pass()).expect("valid");
    broker.subscribe("bad", |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    let mut accepted = vec![broker.publish(event("full")).expect("room").id];
    gate.wait_for_arrival();
    accepted.push(broker.publish(event("full")).expect("room").id);
    broker.publish(event("full")).expect_err("full");
    let known: Event = event("only.streamed");
    for duplicate in [false, true] {
        assert_eq!(broker.publish(known.clone()).expect("room").duplicate, duplicate);
    }
    accepted.push(known.id().clone());
    let failed = broker.publish_sync(event("bad")).expect("room").id;
    accepted.push(failed.clone());

    let mut streamed = Vec::new();
    for item in unread(&stream) {
        let StreamItem::Event(event) = item else { panic!("{item:?}") };
        if event.event_type().as_str() != "eventbroker.dead_letter" {
            streamed.push(event.id().clone());
        }
    }
    assert_eq!(streamed, accepted);
    let status = |id| broker.get(id).expect("no back end").map(|event| event.status());
    assert_eq!(status(known.id()), Some(Status::Completed), "a stream is not a delivery");
    assert_eq!(status(&failed), Some(Status::Failed), "a stream does not hide a failure");
    gate.open();
}

#[test]
fn each_of_several_streams_with_the_same_pattern_yields_every_event() {
    let broker = Broker::builder().start().expect("valid settings");
    let streams = [(); 3].map(|()| broker.stream("x").expect("valid"));
    (0..50).for_each(|number| drop(broker.publish(numbered("x", number)).expect("room")));
    for stream in &streams {
        assert_eq!(numbers(&unread(stream)), (0..50).collect::<Vec<u64>>());
    }
    assert!(in_time("the stop", move || broker.stop(PATIENCE)).is_clean());
    assert!(streams.iter().all(|stream| stream.try_recv() == Err(StreamError::Closed)));
}
