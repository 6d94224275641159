//! Leases: verdicts share round trips and wait for no delivery, leases are extended while a handler runs, and a verdict
//! after the loss of the lease changes nothing.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Config, EventId, ManualClock, PublishError, Scope, Status, SubscribeOptions};
use eventbroker_conformance::loopback::Loopback;

use crate::support::{Gate, PATIENCE, event, keyed, listen, manual_clock, numbered, open_gate, stats_of, wait_until};

const LEASE: Duration = Duration::from_secs(30);

fn broker(loopback: &Loopback) -> Broker {
    Broker::builder().worker_count(4).provider(loopback.provider()).start().expect("a running broker")
}

/// A broker with leases of 30 s on a manual clock.
fn broker_with_clock(loopback: &Loopback, config: Config) -> (Broker, ManualClock) {
    loopback.set_lease_time(LEASE);
    let clock = manual_clock();
    let builder = Broker::builder().config(config).worker_count(4).manual_clock(&clock);
    let broker = builder.provider(loopback.provider()).start().expect("a running broker");
    // The subscription of `settle_another`.
    listen(&broker, SubscribeOptions::new("quick.*").name("quick"), &open_gate());
    (broker, clock)
}

/// The same with one call, which runs until the gate opens. The receiver gets the later ones.
fn broker_with_a_call(loopback: &Loopback) -> (Broker, ManualClock, Gate, Receiver<EventId>) {
    let (broker, clock) = broker_with_clock(loopback, Config::default());
    let gate = Gate::closed();
    let calls = listen(&broker, shared().concurrency(1), &gate);
    let runs = broker.publish(event("lease.it")).expect("accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(runs));
    (broker, clock, gate, calls)
}

fn shared() -> SubscribeOptions {
    SubscribeOptions::new("lease.*").name("shared")
}

fn done(loopback: &Loopback, count: usize) {
    loopback.wait_until("they are settled", |server| server.done("shared") == count);
}

/// Waits until `count` leased deliveries are queued here. From then on the clock counts for their leases.
fn wait_until_queued(broker: &Broker, count: u64) {
    wait_until("the deliveries are queued", || stats_of(broker, "shared").queued == count);
}

/// Lets the broker extend the leases that are due, at least `count`, and waits until it has read the response.
fn extend_leases(loopback: &Loopback, broker: &Broker, clock: &ManualClock, count: u64) {
    let before = loopback.inspect(|server| server.extensions);
    clock.advance(LEASE / 3);
    // Each verdict wakes the thread that extends leases.
    settle_another(loopback, broker);
    loopback.wait_until("leases are extended", |server| server.extensions >= before + count);
    settle_another(loopback, broker);
}

fn settle_another(loopback: &Loopback, broker: &Broker) {
    let before = loopback.inspect(|server| server.done("quick"));
    broker.publish(event("quick.it")).expect("accepted");
    loopback.wait_until("it is settled", |server| server.done("quick") == before + 1);
}

#[test]
fn a_verdict_does_not_wait_for_the_next_delivery() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let calls = listen(&broker, shared(), &gate);
    broker.publish(event("lease.it")).expect("accepted");
    calls.recv_timeout(PATIENCE).expect("the handler is called");
    loopback.hold_receives(true);
    gate.open();
    done(&loopback, 1);
    listen(&broker, SubscribeOptions::new("other.*").name("other"), &gate);
    assert!(
        loopback.inspect(|server| server.queues.contains_key("other")),
        "a registration does not wait for the next delivery either"
    );
    loopback.hold_receives(false);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn verdicts_share_the_round_trips() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let calls = listen(&broker, shared(), &open_gate());
    loopback.hold_settles(true);
    broker.publish(numbered("lease.it", 0)).expect("accepted");
    calls.recv_timeout(PATIENCE).expect("the handler is called");
    loopback.wait_until("the first is being settled", |server| server.settles == 1);
    for number in 1..=100 {
        broker.publish(numbered("lease.it", number)).expect("accepted");
        calls.recv_timeout(PATIENCE).expect("the handler is called");
    }
    wait_until("all verdicts wait for the back end", || broker.stats().in_flight == 0);
    loopback.hold_settles(false);
    done(&loopback, 101);
    assert_eq!(loopback.inspect(|server| server.settles), 2);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn leases_are_extended_while_a_handler_runs() {
    let loopback = Loopback::new();
    let (one, clock) = broker_with_clock(&loopback, Config::default());
    let two = broker(&loopback);
    let (gate, (sender, at_one)) = (Gate::closed(), channel());
    let held = gate.clone();
    one.subscribe_with(shared(), move |delivery| {
        held.pass();
        sender.send(delivery.cancelled()).expect("the test listens");
    })
    .expect("a subscription");
    one.publish(event("lease.it")).expect("accepted");
    gate.wait_for_arrival();
    let at_two = listen(&two, shared(), &open_gate());
    // Four thirds of a lease: beyond its first end.
    (0..4).for_each(|_| extend_leases(&loopback, &one, &clock, 1));
    gate.open();
    assert_eq!(at_one.recv_timeout(PATIENCE), Ok(false), "the lease is valid");
    done(&loopback, 1);
    assert!(one.stop(PATIENCE).is_clean() && two.stop(PATIENCE).is_clean());
    assert_eq!(at_one.try_iter().count() + at_two.try_iter().count(), 0, "it was handled once");
}

#[test]
fn a_call_whose_lease_is_lost_is_cancelled_and_its_verdict_changes_nothing() {
    let loopback = Loopback::new();
    let (broker, clock) = broker_with_clock(&loopback, Config::default());
    let (sender, calls) = channel();
    broker
        .subscribe_with(shared().concurrency(1).queue_capacity(1), move |delivery| {
            let deadline = Instant::now() + PATIENCE;
            let mut cancelled = false;
            // The receiver is gone when the test has received enough.
            let _ = sender.send((delivery.event().id().clone(), false));
            while !cancelled && Instant::now() < deadline {
                thread::park_timeout(Duration::from_millis(1));
                cancelled = delivery.cancelled();
            }
            let _ = sender.send((delivery.event().id().clone(), cancelled));
        })
        .expect("a subscription");
    let other = self::broker(&loopback);
    let id = broker.publish(event("lease.it")).expect("accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok((id.clone(), false)));
    // The broker is full.
    let waits = broker.publish(event("lease.it")).expect("accepted").id;
    wait_until_queued(&broker, 1);
    let there = listen(&other, shared().concurrency(1), &open_gate());
    loopback.expire_leases();
    done(&loopback, 2);
    // The holder treats a lease as lost when two thirds of it have passed since the last extension.
    clock.advance(LEASE / 3 * 2);
    assert_eq!(calls.recv_timeout(PATIENCE), Ok((id.clone(), true)), "the call is cancelled");
    let there: Vec<EventId> = there.try_iter().collect();
    assert_eq!(there, [id, waits], "another member has handled both");
    wait_until("the late verdicts are refused", || broker.stats().bridge.is_some_and(|it| it.leases_lost == 2));
    assert_eq!(loopback.inspect(|server| server.settlements.len()), 2, "late verdicts change nothing");
    broker.stop(PATIENCE);
    assert!(other.stop(PATIENCE).is_clean());
    assert_eq!(calls.try_iter().count(), 0, "no call begins after its lease is lost");
}

#[test]
fn an_event_queued_behind_a_lost_lease_of_its_key_does_not_overtake_it() {
    let loopback = Loopback::new();
    let (broker, clock, gate, calls) = broker_with_a_call(&loopback);
    let [first, second] = ["lease.it"; 2].map(|it| broker.publish(keyed(it, "one")).expect("accepted").id);
    wait_until_queued(&broker, 2);
    loopback.expire_lease(&first);
    extend_leases(&loopback, &broker, &clock, 2);
    gate.open();
    done(&loopback, 3);
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), [first, second]);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn an_event_that_arrives_before_the_redelivery_of_its_key_does_not_overtake_it() {
    let loopback = Loopback::new();
    let (broker, clock, gate, calls) = broker_with_a_call(&loopback);
    let first = broker.publish(keyed("lease.it", "one")).expect("accepted").id;
    wait_until_queued(&broker, 1);
    loopback.withhold(Some(&first));
    loopback.expire_lease(&first);
    extend_leases(&loopback, &broker, &clock, 1);
    let second = broker.publish(keyed("lease.it", "one")).expect("accepted").id;
    loopback.wait_until("the second event arrives before the lost one", |server| server.leased() == 2);
    loopback.withhold(None);
    loopback.wait_until("all are leased", |server| server.leased() == 3);
    gate.open();
    done(&loopback, 3);
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), [first, second]);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn an_event_that_is_on_its_way_while_a_lost_lease_of_its_key_ends_does_not_overtake_it() {
    let loopback = Loopback::new();
    let (broker, clock, gate, calls) = broker_with_a_call(&loopback);
    let [first, second] = ["lease.it"; 2].map(|it| broker.publish(keyed(it, "one")).expect("accepted").id);
    wait_until_queued(&broker, 2);
    loopback.withhold(Some(&first));
    loopback.expire_lease(&first);
    extend_leases(&loopback, &broker, &clock, 2);
    loopback.hold_settles(true);
    broker.publish(event("quick.it")).expect("accepted");
    loopback.wait_until("a third event is leased", |server| server.leased() == 3);
    let begun = loopback.inspect(|server| server.receives);
    loopback.wait_until("a receive begins while both are lost", |server| server.receives > begun);
    loopback.hold_answers(true);
    gate.open();
    loopback.hold_settles(false);
    loopback
        .wait_until("the second event is leased anew", |server| server.released("shared") == 1 && server.leased() == 1);
    wait_until("no lease is lost any more", || broker.stats().bridge.is_some_and(|bridge| bridge.leases == 0));
    loopback.withhold(None);
    loopback.hold_answers(false);
    done(&loopback, 3);
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), [first, second]);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_lease_counts_from_its_request() {
    let loopback = Loopback::new();
    loopback.set_lease_time(LEASE);
    loopback.answer_late(LEASE + Duration::from_secs(1));
    let broker = broker(&loopback);
    let calls = listen(&broker, shared().concurrency(1), &open_gate());
    let first = broker.publish(event("lease.it")).expect("accepted").id;
    wait_until("the event was delivered too late", || broker.stats().bridge.is_some_and(|bridge| bridge.ingested >= 3));
    loopback.answer_late(Duration::ZERO);
    done(&loopback, 1);
    let last = broker.publish(event("lease.it")).expect("accepted").id;
    done(&loopback, 2);
    let called: Vec<EventId> = calls.try_iter().collect();
    assert_eq!(called, [first, last], "each event is handled once, under a valid lease");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn the_lease_of_a_stuck_handler_is_not_extended() {
    let loopback = Loopback::new();
    let mut config = Config::default();
    config.max_handler_time = Duration::from_millis(1);
    let (one, clock) = broker_with_clock(&loopback, config);
    let gate = Gate::closed();
    let at_one = listen(&one, shared().concurrency(1).queue_capacity(1), &gate);
    let id = one.publish(event("lease.it")).expect("accepted").id;
    assert_eq!(at_one.recv_timeout(PATIENCE), Ok(id.clone()));
    one.publish(event("lease.filler")).expect("accepted");
    wait_until_queued(&one, 1);
    let before = loopback.inspect(|server| server.extensions);
    extend_leases(&loopback, &one, &clock, 1);
    assert_eq!(
        loopback.inspect(|server| server.extensions),
        before + 1,
        "only the lease of the waiting event is extended"
    );
    loopback.expire_lease(&id);
    let two = broker(&loopback);
    let at_two = listen(&two, shared(), &open_gate());
    assert_eq!(at_two.recv_timeout(PATIENCE), Ok(id), "another member takes it over");
    gate.open();
    one.stop(PATIENCE);
    assert!(two.stop(PATIENCE).is_clean());
}

#[test]
fn an_event_known_to_the_back_end_is_a_duplicate_for_every_instance() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let here = listen(&two, SubscribeOptions::new("lease.*").name("here").scope(Scope::Local), &open_gate());
    let sent = event("lease.it");
    assert!(!one.publish(sent.clone()).expect("accepted").duplicate);
    let again = two.publish(sent.clone()).expect("accepted");
    assert_eq!((again.id, again.duplicate, again.deliveries), (sent.id().clone(), true, 0));
    assert!(two.publish_sync(sent.clone()).expect("accepted").duplicate);
    let other = eventbroker::Event::builder(sent.source(), "lease.it").id(sent.id().clone()).payload("other").build();
    match two.publish(other.expect("a valid event")) {
        Err(PublishError::IdConflict { event }) => assert_eq!(event.id(), sent.id()),
        other => panic!("not an id conflict: {other:?}"),
    }
    assert_eq!(two.stats().duplicates, 2);
    assert!(one.stop(PATIENCE).is_clean() && two.stop(PATIENCE).is_clean());
    assert_eq!(here.try_iter().count(), 0, "a duplicate is not dispatched");
}

#[test]
fn no_status_is_lost_in_an_outage_with_thousands_of_changes() {
    const EVENTS: u64 = 12_000;
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let options = SubscribeOptions::new("local.*").scope(Scope::Local).concurrency(1).queue_capacity(EVENTS as usize);
    let calls = listen(&broker, options, &gate);
    let receipts: Vec<_> = (0..EVENTS).map(|it| publish_when_there_is_room(&broker, it)).collect();
    for receipt in &receipts {
        receipt.wait(PATIENCE).expect("accepted");
    }
    calls.recv_timeout(PATIENCE).expect("the handler is called");
    loopback.set_unavailable(true);
    gate.open();
    wait_until("all are handled locally", || broker.stats().deliveries.done == EVENTS);
    loopback.set_unavailable(false);
    assert!(broker.stop(PATIENCE).is_clean());
    let completed =
        loopback.inspect(|server| server.events.values().filter(|it| it.status() == Status::Completed).count());
    assert_eq!(completed as u64, EVENTS);
}

fn publish_when_there_is_room(broker: &Broker, number: u64) -> eventbroker::Receipt {
    let mut event = numbered("local.it", number);
    loop {
        match broker.publish_async(event) {
            Ok(receipt) => return receipt,
            Err(PublishError::Full { event: back, .. }) => event = *back,
            Err(error) => panic!("{error}"),
        }
        thread::yield_now();
    }
}
