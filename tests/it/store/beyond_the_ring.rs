//! An open event can always be read, also while a large backlog moves it from the ring to the older generation.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use eventbroker::{Broker, Event, EventId, SubscribeOptions};

use crate::support::{Gate, event};

/// More than the ring holds.
const BACKLOG: usize = 180_000;
const MAX_EVENTS: usize = 10;
const PUBLISHERS: usize = 3;

#[test]
fn an_open_event_can_be_read_at_every_moment() {
    let broker = Broker::builder().max_events(MAX_EVENTS).max_in_flight(2 * BACKLOG).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let options = SubscribeOptions::new("backlog").ordered().queue_capacity(2 * BACKLOG);
    broker.subscribe_with(options, move |_| pass.pass()).expect("valid options");
    let events: Vec<Event> = (0..BACKLOG).map(|_| event("backlog")).collect();
    let ids: Vec<EventId> = events.iter().map(|event| event.id().clone()).collect();
    let published: Vec<AtomicBool> = ids.iter().map(|_| AtomicBool::new(false)).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ring = MAX_EVENTS + 65_536;
    let missed = thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::SeqCst);
                        let Some(event) = events.get(index) else { return };
                        broker.publish(event.clone()).expect("room");
                        published[index].store(true, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut missed = 0;
            while !done.load(Ordering::SeqCst) {
                // The events that are about to move.
                let oldest = next.load(Ordering::SeqCst).saturating_sub(ring + PUBLISHERS);
                for index in oldest..(oldest + 2 * PUBLISHERS).min(BACKLOG) {
                    let is_published = published[index].load(Ordering::SeqCst);
                    if is_published && broker.get(&ids[index]).expect("no back end").is_none() {
                        missed += 1;
                    }
                }
            }
            missed
        });
        publishers.into_iter().for_each(|it| it.join().expect("no panic"));
        done.store(true, Ordering::SeqCst);
        reader.join().expect("no panic")
    });
    gate.open();
    assert_eq!(missed, 0, "reads of open events found nothing");
}
