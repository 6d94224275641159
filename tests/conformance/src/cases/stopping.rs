//! Stop: it drains queues, waits for calls, rejects later publishes, and loses no accepted event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::error::SubscribeError;
use eventbroker::{Broker, PublishError, Scope};

use crate::Subject;
use crate::kit::{
    DRAIN, Gate, Ids, PATIENCE, builder, events, eventually, finish, listen, listen_with, named, numbered, publish_all,
    signal, start,
};

fn assert_stopped(broker: &Broker) {
    let event = numbered("late.it", 0);
    let id = event.id().clone();
    match broker.publish(event) {
        Err(PublishError::NotRunning { event }) => assert_eq!(event.id(), &id),
        other => panic!("a stopped broker rejects every publish: {other:?}"),
    }
    assert_eq!(broker.subscribe("late.*", |_| ()).expect_err("it has stopped"), SubscribeError::Stopped);
}

/// 300 queued events are handled before `stop` returns. After that, publish and subscribe are rejected.
pub fn stop_drains_the_queue(subject: &dyn Subject) {
    let broker = start(subject);
    let gate = Gate::default();
    let held = gate.clone();
    // Local scope: the events of a group subscription may stay in the back end.
    let (_, calls) = listen_with(&broker, named("all", "drain.*").scope(Scope::Local), move |_| held.pass());
    let ids = publish_all(&broker, events("drain.it", 300));
    let report = thread::scope(|scope| {
        let stop = scope.spawn(|| broker.stop(DRAIN));
        eventually("the stop has begun", || !broker.stats().is_running);
        gate.open();
        stop.join().expect("no panic")
    });
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.drained, 300);
    calls.read(&ids);
    assert_eq!(calls.rest().len(), 0);
    assert_stopped(&broker);
}

/// `stop` returns after the running handler.
pub fn stop_waits_for_running_handlers(subject: &dyn Subject) {
    let broker = start(subject);
    let gate = Gate::default();
    let ended = Arc::new(AtomicBool::new(false));
    let (held, done) = (gate.clone(), Arc::clone(&ended));
    let (_, calls) = listen_with(&broker, named("slow", "slow.*"), move |_| {
        held.pass();
        done.store(true, Ordering::SeqCst);
    });
    publish_all(&broker, events("slow.it", 1));
    calls.next();
    thread::scope(|scope| {
        let stop = scope.spawn(|| {
            let report = broker.stop(DRAIN);
            (report, ended.load(Ordering::SeqCst))
        });
        eventually("the stop has begun", || !broker.stats().is_running);
        gate.open();
        let (report, ended) = stop.join().expect("no panic");
        assert!(report.is_clean(), "{report:?}");
        assert!(ended, "stop returned before the handler");
    });
}

/// `Delivery::cancelled` becomes true at the deadline of `stop`, and not before.
pub fn stop_cancels_running_handlers_at_its_deadline(subject: &dyn Subject) {
    let broker = start(subject);
    let (told, was_told) = channel();
    let (inside, wait_until_inside) = signal();
    listen_with(&broker, named("endless", "endless.*"), move |delivery| {
        let at_first = delivery.cancelled();
        // The receiver is dropped when the case has ended.
        let _ = inside.send(());
        let deadline = Instant::now() + PATIENCE;
        while !delivery.cancelled() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(1));
        }
        let _ = told.send((at_first, delivery.cancelled()));
        Err::<(), _>("not finished")
    });
    publish_all(&broker, events("endless.it", 1));
    wait_until_inside();
    let report = broker.stop(Duration::from_millis(20));
    assert!(report.finished);
    assert_eq!(was_told.recv_timeout(PATIENCE).expect("the handler ends"), (false, true));
    assert_stopped(&broker);
}

/// Several threads may stop a broker at once, and again later. All get the same report.
pub fn concurrent_stops_return_the_same_report(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("all", "stop.*"));
    calls.read(&publish_all(&broker, events("stop.it", 20)));
    let reports: Vec<_> = thread::scope(|scope| {
        let stops: Vec<_> = (0..4).map(|_| scope.spawn(|| broker.stop(DRAIN))).collect();
        stops.into_iter().map(|stop| stop.join().expect("no panic")).collect()
    });
    for report in &reports {
        assert_eq!(*report, reports[0]);
        assert!(report.finished);
    }
    assert_eq!(broker.stop(Duration::ZERO), reports[0]);
}

/// Publishing and subscribing while the broker stops either succeeds or is rejected as stopped, without panic or hang.
pub fn publishing_and_subscribing_race_with_stop(subject: &dyn Subject) {
    for round in 0..15 {
        let broker = subject.broker(builder(&format!("round {round}")));
        listen(&broker, named("first", "race.*"));
        let (begun, wait_until_begun) = signal();
        thread::scope(|scope| {
            for publisher in 0..2 {
                let (broker, begun) = (&broker, begun.clone());
                scope.spawn(move || {
                    for number in 0.. {
                        match broker.publish(numbered("race.it", number)) {
                            Ok(_) | Err(PublishError::Full { .. }) => {}
                            Err(PublishError::NotRunning { .. } | PublishError::Unknown { .. }) => return,
                            Err(error) => panic!("publisher {publisher}: {error}"),
                        }
                        if number == 5 {
                            // The receiver is dropped when the round has ended.
                            let _ = begun.send(());
                        }
                    }
                });
            }
            scope.spawn(|| {
                for number in 0.. {
                    match broker.subscribe_with(named(&format!("s{number}"), "race.*"), |_| ()) {
                        Ok(id) => _ = broker.unsubscribe(id),
                        Err(SubscribeError::Stopped) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            wait_until_begun();
            let report = broker.stop(DRAIN);
            assert!(report.finished && report.threads_left == 0, "{report:?}");
        });
        assert_stopped(&broker);
    }
}

/// Publishers continue until they are rejected. Every accepted event is handled, with a durable back end by the next
/// broker.
pub fn stop_loses_no_accepted_event(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("all", "lost.*"));
    let (begun, wait_until_begun) = signal();
    let accepted: Ids = thread::scope(|scope| {
        let publisher = || {
            let mut accepted = Ids::new();
            let mut event = numbered("lost.it", 0);
            loop {
                match broker.publish(event) {
                    Ok(it) => _ = accepted.insert(it.id),
                    Err(PublishError::Full { .. }) => thread::yield_now(),
                    Err(PublishError::NotRunning { .. } | PublishError::Unknown { .. }) => return accepted,
                    Err(error) => panic!("{error}"),
                }
                if accepted.len() == 20 {
                    // The receiver is dropped when the case has ended.
                    let _ = begun.send(());
                }
                event = numbered("lost.it", accepted.len());
            }
        };
        let publishers: Vec<_> = (0..8).map(|_| scope.spawn(publisher)).collect();
        wait_until_begun();
        let report = broker.stop(DRAIN);
        assert!(report.finished && report.threads_left == 0, "{report:?}");
        publishers.into_iter().flat_map(|publisher| publisher.join().expect("a publisher")).collect()
    });
    let handled: Ids = calls.rest().iter().map(|event| event.id().clone()).collect();
    let mut missing: Ids = accepted.difference(&handled).cloned().collect();
    if subject.abilities().durable {
        let next = subject.broker(builder("two"));
        let (_, calls) = listen(&next, named("all", "lost.*"));
        while !missing.is_empty() {
            missing.remove(calls.next().id());
        }
        finish(&next);
    }
    assert_eq!(missing.len(), 0, "accepted and not handled");
}
