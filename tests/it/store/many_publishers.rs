//! A large store, which publishers fill by the run: it holds the latest events of every publisher, accepts no id twice,
//! and keeps its bound.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use eventbroker::query::Filter;
use eventbroker::{Broker, Event, EventId, Source};

use crate::support::event;

const MAX_EVENTS: usize = 8_192;
/// Positions that hold no event: those of the runs of 32 that publishers have taken, of a run that is evicted at once,
/// and of a run that its publisher gave up because 16 times as many others went by. The last may happen to each
/// publisher, but not to all of them all the time.
const SLACK: usize = PUBLISHERS * 32 + 64 + MAX_EVENTS / 16;
const PUBLISHERS: usize = 6;

fn broker() -> Broker {
    Broker::builder().max_events(MAX_EVENTS).start().expect("valid settings")
}

#[test]
fn the_latest_of_all_publishers_are_held_and_no_more_than_the_bound() {
    let broker = broker();
    let start = Barrier::new(PUBLISHERS);
    let publish = || {
        start.wait();
        (0..20_000).map(|_| broker.publish(event("store.many")).expect("room").id).collect::<Vec<EventId>>()
    };
    let all: Vec<Vec<EventId>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PUBLISHERS).map(|_| scope.spawn(publish)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(broker.stats().accepted, 20_000 * PUBLISHERS as u64);
    let stats = broker.store_stats();
    assert_eq!(stats.events, stats.completed);
    assert!((MAX_EVENTS - SLACK..=MAX_EVENTS).contains(&(stats.events as usize)), "{stats:?}");
    let held = |id: &&EventId| broker.get(id).expect("no back end").is_some();
    assert_eq!(all.iter().flatten().filter(held).count() as u64, stats.events);
    // The latest events of each publisher are held without a gap.
    let last = all.iter().max_by_key(|ids| ids.last().cloned()).expect("several");
    let latest = last.iter().rev().take_while(held).count();
    assert!(latest > 0);
    let older = last[..last.len() - latest].iter().filter(held).count();
    assert_eq!(older, 0, "no event is held that is older than an evicted one");
}

#[test]
fn events_of_a_slow_publisher_are_not_evicted_early() {
    let broker = broker();
    let (ask, asked) = channel();
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        let broker = &broker;
        scope.spawn(move || {
            // Quick at first, so that the publisher takes long runs.
            (0..1_000).for_each(|_| drop(broker.publish(event("store.seldom")).expect("room")));
            for () in asked {
                tell.send(broker.publish(event("store.seldom")).expect("room").id).expect("the test waits for it");
            }
        });
        for _ in 0..20 {
            ask.send(()).expect("the other publisher lives");
            let id = told.recv().expect("the other publisher lives");
            (0..7_000).for_each(|_| drop(broker.publish(event("store.often")).expect("room")));
            assert!(broker.get(&id).expect("no back end").is_some(), "7,000 later ones are no reason to forget it");
        }
        drop(ask);
    });
}

#[test]
fn one_of_several_publishers_of_an_id_is_accepted() {
    let broker = broker();
    let accepted = AtomicUsize::new(0);
    let start = Barrier::new(PUBLISHERS);
    let made: Vec<Event> = (0..20_000)
        .map(|number| {
            let builder = Event::builder(Source::System, "store.same");
            if number % 3 == 0 { builder.id(format!("given-{number}")) } else { builder }.build().expect("valid")
        })
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..PUBLISHERS {
            scope.spawn(|| {
                for chunk in made.chunks(1_000) {
                    start.wait();
                    let new = |event: &&Event| !broker.publish((*event).clone()).expect("room").duplicate;
                    accepted.fetch_add(chunk.iter().filter(new).count(), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(accepted.load(Ordering::Relaxed), made.len());
    assert_eq!((broker.stats().accepted, broker.stats().duplicates), (20_000, 20_000 * (PUBLISHERS as u64 - 1)));
    let ids: HashSet<&EventId> = made.iter().map(Event::id).collect();
    let page = broker.list(&Filter { limit: Some(Filter::MAX_LIMIT), ..Filter::default() }).expect("no back end");
    let listed: HashSet<&EventId> = page.events.iter().map(Event::id).collect();
    assert_eq!(listed.len(), page.events.len(), "each event is listed once");
    assert!(listed.is_subset(&ids));
}
