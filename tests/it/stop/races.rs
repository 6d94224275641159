//! Races of publish and `stop`: each event is refused, handled, or listed as abandoned. None is lost, and none is
//! handled and abandoned.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use eventbroker::{Broker, EventId, Outcome, Overflow, PublishError, RetryPolicy, SubscribeOptions};
use parking_lot::Mutex;

use crate::support::{PATIENCE, event, in_time, keyed, wait_until};

const ROUNDS: usize = 100;
const PUBLISHERS: usize = 3;

/// One round: publishers publish until they are refused. Returns the accepted, handled and abandoned ids.
fn round(number: usize, deadline: Duration) -> (BTreeSet<EventId>, Vec<EventId>, BTreeSet<EventId>) {
    let policy = RetryPolicy::fixed(2, Duration::from_millis(1));
    let broker = Broker::builder().worker_count(2).retry_policy(policy).start().expect("valid settings");
    let handled: Arc<Mutex<Vec<EventId>>> = Arc::default();
    let done = Arc::clone(&handled);
    let options = SubscribeOptions::new("x").overflow(Overflow::Block(PATIENCE)).queue_capacity(16);
    let options = if number.is_multiple_of(2) { options.ordered() } else { options };
    broker
        .subscribe_with(options, move |delivery| {
            let id = delivery.event().id();
            if delivery.attempt() == 1 && delivery.event().user_id() == Some(7) {
                return Outcome::Retry("once more".into());
            }
            done.lock().push(id.clone());
            Outcome::Done
        })
        .expect("valid");
    let ready = Arc::new(Barrier::new(PUBLISHERS + 1));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (broker, ready) = (broker.clone(), Arc::clone(&ready));
            thread::spawn(move || {
                let mut accepted = Vec::new();
                ready.wait();
                loop {
                    let event = if accepted.len() % 2 == 0 { event("x") } else { keyed("x", "k") };
                    let answer = match publisher {
                        0 => broker.publish_sync(event).map(|report| report.id),
                        1 => broker.publish(event).map(|accepted| accepted.id),
                        _ => broker.publish_async(event).map(|receipt| receipt.id().clone()),
                    };
                    match answer {
                        Ok(id) => accepted.push(id),
                        Err(PublishError::NotRunning { .. }) => return accepted,
                        // Only `publish_async` does not wait for a place.
                        Err(PublishError::Full { .. }) if publisher == 2 => thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    ready.wait();
    for _ in 0..number % 8 {
        thread::yield_now();
    }
    let report = broker.stop(deadline);
    assert!(report.finished && (deadline.is_zero() || report.threads_left == 0), "{report:?}");
    let accepted = publishers.into_iter().flat_map(|it| it.join().expect("no panic")).collect();
    // A call that runs at the deadline may end a moment later.
    wait_until("all events have a verdict", || broker.stats().in_flight == 0);
    let stats = broker.stats();
    assert_eq!(stats.completed, stats.accepted);
    let handled = std::mem::take(&mut *handled.lock());
    (accepted, handled, report.abandoned.into_iter().collect())
}

#[test]
fn with_time_to_drain_every_accepted_event_is_handled() {
    in_time_rounds(PATIENCE, |accepted, handled, abandoned| {
        assert!(abandoned.is_empty(), "{abandoned:?}");
        assert_eq!(handled, accepted);
    });
}

#[test]
fn without_time_to_drain_every_accepted_event_is_handled_or_abandoned() {
    in_time_rounds(Duration::ZERO, |accepted, handled, abandoned| {
        let lost: Vec<_> = accepted.iter().filter(|id| !handled.contains(id) && !abandoned.contains(id)).collect();
        assert!(lost.is_empty(), "{} of {} are lost", lost.len(), accepted.len());
        // Only a call that runs at the deadline can be abandoned and handled.
        let both = handled.intersection(&abandoned).count();
        assert!(both <= 2 + PUBLISHERS, "{both} were handled and abandoned");
        assert!(
            handled.union(&abandoned).all(|id| accepted.contains(id)),
            "a refused event is neither handled nor abandoned"
        );
    });
}

fn in_time_rounds(deadline: Duration, check: fn(BTreeSet<EventId>, BTreeSet<EventId>, BTreeSet<EventId>)) {
    for number in 0..ROUNDS {
        let (accepted, calls, abandoned) = in_time("the round", move || round(number, deadline));
        let handled: BTreeSet<EventId> = calls.iter().cloned().collect();
        assert_eq!(handled.len(), calls.len(), "an event was handled twice");
        check(accepted, handled, abandoned);
    }
}
