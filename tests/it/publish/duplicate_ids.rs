//! Duplicates: a publish of an event whose id is still in the store is accepted and has no effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventbroker::{
    Broker, Event, EventBuilder, Outcome, Overflow, PublishError, Source, Status, SubscribeOptions, Verdict,
};

use crate::support::{Gate, Settlements, event, receive};

/// Ids that were not generated in this process.
const FOREIGN_IDS: [&str; 6] = [
    "invoice-42",
    "ключ 7",
    // A UUID of version 4, one of version 7 from another process, the nil UUID, and one that is not in the hyphenated
    // form.
    "7d444840-9dc0-11d1-b245-5ffdce74fad2",
    "01890a5d-ac96-774b-bcce-b302099a8057",
    "00000000-0000-0000-0000-000000000000",
    "01890A5D-AC96-774B-BCCE-B302099A8057",
];

fn of_id(id: &str) -> EventBuilder {
    Event::builder(Source::Database, "a.b.c").id(id).payload(&1).key("k")
}

fn build(builder: EventBuilder) -> Event {
    builder.build().expect("a valid event")
}

fn running() -> (Broker, Settlements) {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    (broker, settlements)
}

/// One event with a generated id, and one of each foreign id.
fn of_every_origin() -> Vec<Event> {
    let foreign = FOREIGN_IDS.iter().map(|id| build(of_id(id)));
    foreign.chain([event("a.b.c")]).collect()
}

#[test]
fn a_known_event_is_neither_stored_nor_delivered_again() {
    for sent in of_every_origin() {
        let (broker, settlements) = running();
        broker.subscribe("*", |_| ()).expect("a subscription");
        let first = broker.publish(sent.clone()).expect("accepted");
        assert_eq!((&first.id, first.duplicate, first.deliveries), (sent.id(), false, 1));
        assert_eq!(settlements.next().id, *sent.id());

        let again = broker.publish(sent.clone()).expect("accepted");
        assert_eq!((&again.id, again.duplicate, again.deliveries), (sent.id(), true, 0));
        let receipt = broker.publish_async(sent.clone()).expect("accepted");
        assert!(receipt.wait(Duration::ZERO).expect("accepted").duplicate);
        let report = broker.publish_sync(sent.clone()).expect("accepted");
        assert!(report.duplicate && report.settled.is_empty() && report.open.is_empty() && report.is_success());
        assert!(broker.publish_batch([sent.clone()]).remove(0).expect("accepted").duplicate);

        let stats = broker.stats();
        assert_eq!((stats.accepted, stats.duplicates, stats.rejected, stats.attempts), (1, 4, 0, 1), "{}", sent.id());
        assert_eq!(broker.store_stats().events, 1);
    }
}

#[test]
fn an_event_is_known_while_it_runs_and_while_it_is_queued() {
    for sent in of_every_origin() {
        let (broker, settlements) = running();
        let gate = Gate::closed();
        let handler_gate = gate.clone();
        let options = SubscribeOptions::new("*").concurrency(1);
        broker.subscribe_with(options, move |_| handler_gate.pass()).expect("a subscription");
        let queued = event("queued");
        broker.publish(sent.clone()).expect("accepted");
        gate.wait_for_arrival();
        broker.publish(queued.clone()).expect("accepted");

        assert!(broker.publish(sent.clone()).expect("accepted").duplicate);
        assert!(broker.publish(queued.clone()).expect("accepted").duplicate);
        gate.open();
        assert_eq!(settlements.take(2).iter().map(|it| &it.id).collect::<Vec<_>>(), [sent.id(), queued.id()]);
        assert_eq!((broker.stats().attempts, broker.stats().duplicates), (2, 2));
    }
}

#[test]
fn a_failed_event_is_known_and_not_attempted_again() {
    let (broker, settlements) = running();
    broker.subscribe("a.**", |_| Outcome::Permanent("no".into())).expect("a subscription");
    let sent = event("a.b");
    broker.publish(sent.clone()).expect("accepted");
    assert_eq!(settlements.next().verdict, Verdict::Dead);
    assert!(broker.publish(sent.clone()).expect("accepted").duplicate);
    let held = broker.get(sent.id()).expect("the memory store").expect("the event");
    assert_eq!((held.status(), held.error()), (Status::Failed, Some("no")));
}

#[test]
fn other_content_under_a_known_id_is_an_error() {
    type Change = fn(EventBuilder) -> EventBuilder;
    let others: [(&str, Change); 9] = [
        ("type", |it| it.event_type("a.b.d")),
        ("payload", |it| it.payload(&2)),
        ("no payload", |it| it.payload_json("null")),
        ("key", |it| it.key("l")),
        ("user", |it| it.user_id(5)),
        ("session", |it| it.session_id("s")),
        ("schema", |it| it.schema("other")),
        ("metadata", |it| it.metadata("m", 1)),
        ("no key", |it| it.key("")),
    ];
    for id in FOREIGN_IDS {
        let (broker, settlements) = running();
        broker.subscribe("*", |_| ()).expect("a subscription");
        let sent = build(of_id(id));
        broker.publish(sent.clone()).expect("accepted");
        settlements.next();
        for (what, change) in others {
            let changed = build(change(of_id(id)));
            let refused = broker.publish(changed.clone()).expect_err(what);
            assert!(matches!(refused, PublishError::IdConflict { .. }), "{what}: {refused:?}");
            assert_eq!((refused.code(), refused.event().id()), ("id_conflict", changed.id()));
            assert_eq!(refused.to_string(), format!("event {id} is known with other content"));
            assert_eq!(refused.event().payload(), changed.payload());
        }
        let source = build(Event::builder(Source::Frontend, "a.b.c").id(id).payload(&1).key("k"));
        assert!(matches!(broker.publish_sync(source), Err(PublishError::IdConflict { .. })));

        let held = broker.get(sent.id()).expect("the memory store").expect("the event");
        assert_eq!((held.payload(), held.event_type().as_str(), held.key()), (sent.payload(), "a.b.c", Some("k")));
        let stats = broker.stats();
        assert_eq!((stats.accepted, stats.rejected, stats.duplicates, stats.attempts), (1, 10, 0, 1));
        assert_eq!(settlements.so_far(), []);
    }
}

#[test]
fn the_time_and_the_instance_of_an_event_are_not_part_of_its_content() {
    let (broker, _) = running();
    broker.publish(build(of_id("x").created_at(SystemTime::now()))).expect("accepted");
    let later = SystemTime::now() + Duration::from_secs(5);
    let elsewhere = build(of_id("x").created_at(later).instance_id("another"));
    assert!(broker.publish(elsewhere).expect("accepted").duplicate);
    assert!(broker.publish(build(of_id("x").created_at(UNIX_EPOCH))).expect("accepted").duplicate);
}

#[test]
fn the_id_of_a_refused_event_is_not_known() {
    let (broker, settlements) = running();
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let options = SubscribeOptions::new("a.**").concurrency(1).queue_capacity(1);
    broker.subscribe_with(options, move |_| handler_gate.pass()).expect("a subscription");
    broker.publish(event("a.b")).expect("accepted");
    gate.wait_for_arrival();
    broker.publish(event("a.b")).expect("accepted");
    for id in FOREIGN_IDS {
        broker.publish(build(of_id(id))).expect_err("no room");
    }
    gate.open();
    settlements.take(2);
    for id in FOREIGN_IDS {
        let accepted = broker.publish(build(of_id(id).payload(&"other content"))).expect("accepted");
        assert!(!accepted.duplicate);
        assert_eq!(settlements.next().id, accepted.id);
    }
}

#[test]
fn an_event_that_left_the_store_is_new() {
    for sent in of_every_origin() {
        let broker = Broker::builder().max_events(4).start().expect("a running broker");
        let settlements = Settlements::of(&broker);
        broker.subscribe("*", |_| ()).expect("a subscription");
        for round in 0..3 {
            let accepted = broker.publish(sent.clone()).expect("accepted");
            assert!(!accepted.duplicate, "round {round} of {}", sent.id());
            assert_eq!(settlements.next().id, *sent.id());
            assert!(broker.publish(sent.clone()).expect("accepted").duplicate);
            for _ in 0..4 {
                broker.publish(event("other")).expect("accepted");
                settlements.next();
            }
        }
        // An event with other content is new, too.
        let other = Event::builder(Source::System, "z").id(sent.id().clone()).build().expect("a valid event");
        assert!(!broker.publish(other).expect("accepted").duplicate);
    }
}

#[test]
fn repeated_duplicates_evict_nothing_from_the_store() {
    for sent in of_every_origin() {
        let broker = Broker::builder().max_events(4).start().expect("a running broker");
        let settlements = Settlements::of(&broker);
        broker.subscribe("*", |_| ()).expect("a subscription");
        let others = [event("other"), event("other"), event("other")];
        for event in [&sent, &others[0], &others[1], &others[2]] {
            broker.publish(event.clone()).expect("accepted");
            settlements.next();
        }
        for round in 0..20 {
            for event in [&sent, &others[0], &others[1], &others[2]] {
                assert!(broker.publish(event.clone()).expect("accepted").duplicate, "round {round} of {}", event.id());
            }
        }
        assert_eq!((broker.store_stats().events, broker.stats().accepted), (4, 4));
        for event in [&sent, &others[0], &others[1], &others[2]] {
            assert!(broker.get(event.id()).expect("the memory store").is_some());
        }
    }
}

#[test]
fn a_duplicate_needs_no_place_in_a_queue() {
    let an_hour = Duration::from_secs(3600);
    for (max_in_flight, overflow) in [
        (100, Overflow::Reject),
        (100, Overflow::Block(an_hour)),
        (100, Overflow::DropOldest),
        (100, Overflow::DropNewest),
        (2, Overflow::Reject),
        (2, Overflow::Block(an_hour)),
    ] {
        let broker = Broker::builder().max_in_flight(max_in_flight).start().expect("a running broker");
        let settlements = Settlements::of(&broker);
        let gate = Gate::closed();
        let handler_gate = gate.clone();
        let options = SubscribeOptions::new("*").concurrency(1).queue_capacity(1).overflow(overflow);
        broker.subscribe_with(options, move |_| handler_gate.pass()).expect("a subscription");
        let (running, queued) = (build(of_id("running")), event("queued"));
        broker.publish(running.clone()).expect("accepted");
        gate.wait_for_arrival();
        broker.publish(queued.clone()).expect("accepted");

        let (sender, outcomes) = channel();
        let publisher = broker.clone();
        thread::spawn(move || sender.send(publisher.publish_batch([running, queued])));
        for outcome in receive(&outcomes, "results without a free place") {
            assert!(outcome.expect("a known event").duplicate, "{overflow:?}");
        }
        gate.open();
        assert!(settlements.take(2).iter().all(|it| it.verdict == Verdict::Done), "{overflow:?}");
    }
}

#[test]
fn one_of_many_concurrent_publishes_of_an_event_is_new() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 300;
    let text_ids = (0..ROUNDS).map(|round| build(of_id(&format!("text {round}"))));
    let foreign = (0..ROUNDS).map(|round| build(of_id(&format!("01890a5d-ac96-774b-bcce-{round:012}"))));
    let own = (0..ROUNDS).map(|_| event("a.b.c"));
    let events: Vec<Event> = text_ids.chain(foreign).chain(own).collect();
    let total = events.len() as u64;

    let (broker, settlements) = running();
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let options = SubscribeOptions::new("*").queue_capacity(10_000);
    let count = move |_: &eventbroker::Delivery<'_>| {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    broker.subscribe_with(options, count).expect("a subscription");
    let (barrier, new_ones) = (Barrier::new(THREADS), Mutex::new(vec![0; events.len()]));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for (number, event) in events.iter().enumerate() {
                    barrier.wait();
                    let accepted = broker.publish(event.clone()).expect("accepted");
                    assert_eq!(accepted.id, *event.id());
                    if !accepted.duplicate {
                        new_ones.lock().expect("no panic")[number] += 1;
                    }
                }
            });
        }
    });
    assert!(new_ones.lock().expect("no panic").iter().all(|&new| new == 1));
    settlements.take(events.len());
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.duplicates), (total, total * (THREADS as u64 - 1)));
    assert_eq!((calls.load(Ordering::SeqCst), stats.deliveries.done), (total, total));
}
