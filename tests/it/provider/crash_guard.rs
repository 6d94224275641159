//! The crash guard: a delivery whose lease was lost may have crashed its holder. The call of such a suspect is marked at
//! the back end before it begins. A suspect that was marked when its holder died runs alone, and after three crashes it
//! becomes a dead letter.

use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::provider::LeaseOutcome;
use eventbroker::{Broker, EventId, ManualClock, RetryPolicy, SubscribeOptions};
use eventbroker_conformance::loopback::Loopback;

use crate::support::{Gate, PATIENCE, event, listen, numbered, open_gate};

fn broker(loopback: &Loopback) -> Broker {
    let retry = RetryPolicy::fixed(3, Duration::from_millis(5));
    let builder = Broker::builder().worker_count(8).retry_policy(retry);
    builder.provider(loopback.provider()).start().expect("a running broker")
}

fn shared() -> SubscribeOptions {
    SubscribeOptions::new("guard.*").name("guarded").concurrency(8)
}

/// A broker that holds leases on `count` events, runs the first, and is full.
fn holder(loopback: &Loopback, count: usize, gate: &Gate) -> (Broker, Vec<EventId>) {
    let holder = broker(loopback);
    let calls = listen(&holder, shared().concurrency(1).queue_capacity(count), gate);
    let mut ids: Vec<EventId> =
        (0..count).map(|it| holder.publish(numbered("guard.it", it as u64)).expect("room").id).collect();
    calls.recv_timeout(PATIENCE).expect("the handler is called");
    loopback.wait_until("all are leased", |server| server.leased() == count);
    ids.push(holder.publish(event("guard.filler")).expect("room").id);
    loopback.wait_until("the holder is full", |server| server.leased() == count + 1);
    (holder, ids)
}

/// Gives all leases of the holder, each with a crash, to the successor, which runs one of the six deliveries. Returns that
/// one.
fn take_over(loopback: &Loopback, successor: &Broker, gate: &Gate) -> (Receiver<EventId>, EventId) {
    loopback.crash_holders(1);
    let calls = listen(successor, shared(), gate);
    let first = calls.recv_timeout(PATIENCE).expect("the first suspect is called");
    loopback.wait_until("the others are leased, too", |server| server.leased() == 6);
    (calls, first)
}

/// Releases the holder's call, and stops both brokers.
fn end(held: &Gate, two: &Broker, holder: &Broker) {
    held.open();
    assert!(two.stop(PATIENCE).is_clean());
    holder.stop(PATIENCE);
}

#[test]
fn suspects_without_a_crash_run_beside_each_other_and_each_is_marked() {
    let loopback = Loopback::new();
    let (held, gate) = (Gate::closed(), Gate::closed());
    let (one, ids) = holder(&loopback, 5, &held);
    let two = broker(&loopback);
    loopback.expire_leases();
    let calls = listen(&two, shared(), &gate);
    let mut called: Vec<EventId> =
        ids.iter().map(|_| calls.recv_timeout(PATIENCE).expect("all six are called at the same time")).collect();
    called.sort_unstable();
    assert_eq!(called, ids);
    assert_eq!(loopback.inspect(|server| server.marks), (6, 0), "each has its mark while it runs");
    gate.open();
    loopback.wait_until("all are settled", |server| server.done("guarded") == 6);
    end(&held, &two, &one);
}

#[test]
fn a_suspect_with_a_crash_does_not_run_beside_one_without() {
    let loopback = Loopback::new();
    let (held, marked, gate) = (Gate::closed(), Gate::closed(), Gate::closed());
    let (one, ids) = holder(&loopback, 1, &held);
    // The second holder marks one event and has not begun the other.
    let two = broker(&loopback);
    loopback.expire_leases();
    let calls = listen(&two, shared().concurrency(1).queue_capacity(1), &marked);
    calls.recv_timeout(PATIENCE).expect("the first suspect is called");
    loopback.wait_until("the other is leased, too", |server| server.leased() == 2);
    let three = broker(&loopback);
    loopback.expire_leases();
    let calls = listen(&three, shared(), &gate);
    let first = calls.recv_timeout(PATIENCE).expect("one suspect is called");
    loopback.wait_until("the other is leased, too", |server| server.leased() == 2);
    let fresh = three.publish(event("guard.fresh")).expect("room").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(fresh), "the other suspect waits");
    gate.open();
    let second = calls.recv_timeout(PATIENCE).expect("the other suspect is called");
    assert_eq!(BTreeSet::from([first, second]), ids.into_iter().collect());
    loopback.wait_until("all are settled", |server| server.done("guarded") == 3);
    marked.open();
    two.stop(PATIENCE);
    end(&held, &three, &one);
}

#[test]
fn suspects_with_a_crash_run_one_at_a_time_and_do_not_block_others() {
    let loopback = Loopback::new();
    let (held, gate) = (Gate::closed(), Gate::closed());
    let (one, ids) = holder(&loopback, 5, &held);
    let two = broker(&loopback);
    let (calls, first) = take_over(&loopback, &two, &gate);
    assert!(ids.contains(&first), "it is a suspect");
    for number in 0..3 {
        let fresh = two.publish(numbered("guard.fresh", number)).expect("room").id;
        assert_eq!(calls.recv_timeout(PATIENCE), Ok(fresh), "an event that is no suspect runs beside it");
    }
    assert_eq!(loopback.inspect(|server| server.marks), (1, 0), "the back end has the mark of the one call");
    gate.open();
    loopback.wait_until("all are settled", |server| server.done("guarded") == 9);
    // No key and no `ordered()`: the workers may exchange the order of the suspects.
    let mut called: Vec<EventId> = calls.try_iter().chain([first]).collect();
    called.sort_unstable();
    assert_eq!(called, ids);
    assert_eq!(loopback.inspect(|server| server.marks), (6, 0));
    end(&held, &two, &one);
}

#[test]
fn a_suspect_without_a_free_worker_does_not_hold_up_those_of_other_subscriptions() {
    let loopback = Loopback::new();
    let (held, tea_gate, sugar_gate) = (Gate::closed(), Gate::closed(), Gate::closed());
    let sugar = || SubscribeOptions::new("sugar.*").name("sugar").concurrency(1);
    let tea = || SubscribeOptions::new("tea.*").name("tea").concurrency(2);
    let one = broker(&loopback);
    let (sugar_calls, tea_calls) = (listen(&one, sugar(), &held), listen(&one, tea(), &held));
    let of_sugar = one.publish(event("sugar.it")).expect("room").id;
    let of_tea: Vec<EventId> = (0..2).map(|number| one.publish(numbered("tea.it", number)).expect("room").id).collect();
    sugar_calls.recv_timeout(PATIENCE).expect("the handler is called");
    (0..2).for_each(|_| _ = tea_calls.recv_timeout(PATIENCE).expect("the handler is called"));
    // It takes no more.
    one.stats().subscriptions.iter().for_each(|it| assert!(one.pause(it.id).is_ok()));
    let two = broker(&loopback);
    // One of tea runs alone. Then the one of sugar waits, and then the other of tea.
    loopback.withhold(Some(&of_tea[1]));
    loopback.crash_holders(1);
    let tea_calls = listen(&two, tea(), &tea_gate);
    assert_eq!(tea_calls.recv_timeout(PATIENCE).as_ref(), Ok(&of_tea[0]));
    let sugar_calls = listen(&two, sugar(), &sugar_gate);
    loopback.wait_until("sugar's is leased", |server| server.leased() == 2);
    let fresh = two.publish(event("sugar.fresh")).expect("room").id;
    assert_eq!(sugar_calls.recv_timeout(PATIENCE), Ok(fresh), "the suspect of sugar waits");
    loopback.withhold(None);
    loopback.wait_until("tea's other one is leased", |server| server.leased() == 4);
    tea_gate.open();
    assert_eq!(tea_calls.recv_timeout(PATIENCE).as_ref(), Ok(&of_tea[1]), "sugar has no worker free");
    sugar_gate.open();
    assert_eq!(sugar_calls.recv_timeout(PATIENCE), Ok(of_sugar));
    loopback.wait_until("all are settled", |server| server.done("sugar") + server.done("tea") == 4);
    end(&held, &two, &one);
}

#[test]
fn a_suspect_that_loses_its_lease_while_it_waits_does_not_block_others() {
    let loopback = Loopback::new();
    loopback.set_lease_time(Duration::from_secs(30));
    let (held, gate, clock) = (Gate::closed(), Gate::closed(), ManualClock::new());
    let (one, _) = holder(&loopback, 5, &held);
    let builder = Broker::builder().worker_count(8).manual_clock(&clock);
    let two = builder.provider(loopback.provider()).start().expect("a running broker");
    let (calls, _) = take_over(&loopback, &two, &gate);
    let fresh = two.publish(event("guard.fresh")).expect("room").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(fresh), "the suspects before it wait");
    // While a verdict is being settled, no lease is extended.
    loopback.hold_settles(true);
    let quick = listen(&two, SubscribeOptions::new("quick.*").name("quick"), &open_gate());
    two.publish(event("quick.it")).expect("room");
    quick.recv_timeout(PATIENCE).expect("the handler is called");
    loopback.wait_until("the verdict is being settled", |server| server.settles == 1);
    clock.advance(Duration::from_secs(21));
    gate.open();
    let cancelled = || two.stats().deliveries.cancelled;
    let deadline = Instant::now() + PATIENCE;
    while cancelled() < 5 && Instant::now() < deadline {
        thread::park_timeout(Duration::from_millis(1));
    }
    let cancelled = cancelled();
    loopback.hold_settles(false);
    assert_eq!(cancelled, 5, "no suspect with a lost lease has begun");
    loopback.wait_until("the suspects are redelivered and settled", |server| server.done("guarded") == 7);
    assert_eq!(calls.try_iter().count(), 5);
    end(&held, &two, &one);
}

#[test]
fn three_crashes_make_a_dead_letter_without_another_call() {
    let loopback = Loopback::new();
    let held = Gate::closed();
    let (one, ids) = holder(&loopback, 1, &held);
    let two = broker(&loopback);
    loopback.crash_holders(3);
    let calls = listen(&two, shared(), &open_gate());
    loopback.wait_until("the events are dead letters", |server| {
        let dead = |it: &LeaseOutcome| matches!(it, LeaseOutcome::Dead { reason: DeadReason::CrashLoop, .. });
        server.settlements.iter().filter(|it| dead(&it.outcome)).count() == ids.len()
    });
    let letters = two
        .dead_letters(&DeadLetterFilter { reason: Some(DeadReason::CrashLoop), ..Default::default() })
        .expect("the back end answers");
    let dead: BTreeSet<_> = letters.iter().map(|letter| letter.event.id()).collect();
    assert_eq!(dead, ids.iter().collect());
    assert_eq!(letters[0].reason.as_str(), "crash_loop");
    end(&held, &two, &one);
    assert_eq!(calls.try_iter().count(), 0, "no further call");
}

#[test]
fn after_two_crashes_the_event_is_delivered() {
    let loopback = Loopback::new();
    let held = Gate::closed();
    let (one, _) = holder(&loopback, 1, &held);
    let two = broker(&loopback);
    loopback.crash_holders(2);
    let calls = listen(&two, shared(), &open_gate());
    loopback.wait_until("the events are handled", |server| server.done("guarded") == 2);
    assert_eq!(calls.try_iter().count(), 2);
    end(&held, &two, &one);
}

#[test]
fn a_failed_call_does_not_count_as_a_crash() {
    let loopback = Loopback::new();
    let held = Gate::closed();
    let (one, ids) = holder(&loopback, 1, &held);
    let two = broker(&loopback);
    loopback.crash_holders(2);
    two.subscribe_with(shared(), |delivery| if delivery.attempt() == 1 { Err("not yet") } else { Ok(()) })
        .expect("a subscription");
    loopback.wait_until("the events are handled", |server| server.done("guarded") == ids.len());
    assert_eq!(loopback.inspect(|server| server.marks), (2, 2), "each mark was removed after its call");
    end(&held, &two, &one);
}

#[test]
fn waiting_suspects_are_released_by_unsubscribe() {
    let loopback = Loopback::new();
    let (held, gate) = (Gate::closed(), Gate::closed());
    let (one, ids) = holder(&loopback, 5, &held);
    let two = broker(&loopback);
    let (calls, _) = take_over(&loopback, &two, &gate);
    let subscription = two.stats().subscriptions[0].id;
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(two.unsubscribe(subscription), Ok(0)));
        loopback.wait_until("five are released", |server| server.leased() == 1);
        gate.open();
    });
    loopback.wait_until("the running call is settled", |server| server.done("guarded") == 1);
    assert_eq!(calls.try_iter().count(), 0, "no call begins after unsubscribe");
    assert_eq!(loopback.inspect(|server| server.released("guarded")), ids.len() - 1);
    end(&held, &two, &one);
}
